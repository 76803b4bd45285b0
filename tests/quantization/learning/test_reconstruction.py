"""Reconstruction: begins where rounding left it, and is kept only where held-out texts gain."""

from __future__ import annotations

import pytest
import torch

import simulated


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, simulated.QuantizedRun]:
    root = tmp_path_factory.mktemp("auto")
    texts = {"examples": 48, "batch_size": 8}
    bits = {
        "method": "auto",
        "refine": True,
        "weight_bits": 4,
        "activation_bits": 4,
        "calibration": texts,
    }
    return {
        "plain": simulated.run_quantize(root, **{**bits, "refine": False}),
        # a tiny random model begins so near that the usual rate finds nothing to keep
        "learned": simulated.run_quantize(root, **bits, learning_rate=3e-4),
        "too fast": simulated.run_quantize(root, **bits, epochs=2, learning_rate=1e3),
    }


def test_held_out_texts_gain_or_the_start_is_kept(runs) -> None:
    details = runs["learned"].metrics["reconstruction"]
    assert details["kept_epoch"] > 0
    assert 0 < details["held_out"]["kept"] < details["held_out"]["before"] < 1


def test_learning_that_only_harms_is_rolled_back(runs) -> None:
    assert runs["too fast"].metrics["reconstruction"]["rolled_back"]
    start, kept = runs["plain"].metrics, runs["too fast"].metrics
    assert kept["logits_sqnr_db"] == pytest.approx(start["logits_sqnr_db"])
    assert kept["sites"] == start["sites"]


def test_what_is_stored_is_what_was_learned(runs) -> None:
    # the artifact, opened again, is as near to the float model as the metrics say
    from attar.models.load import load_model
    from attar.models.simulated.quantized import load_simulated
    from attar.numerics.agreement import sqnr_db

    run = runs["learned"]
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 11, 12, 13, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        quantized = load_simulated(run.folder).model(**inputs).logits
        wanted = load_model(run.float_folder).model(**inputs).logits
    assert sqnr_db(wanted, quantized) > 8


@pytest.mark.parametrize("family", ["roberta", "bart"])
def test_every_family_of_classifiers_is_reconstructed(tmp_path, family: str) -> None:
    bits = {"weight_bits": 4, "activation_bits": 4}
    settings = {"method": "auto", "refine": True, "epochs": 1, **bits}
    run = simulated.run_quantize(tmp_path, family, **settings)
    details = run.metrics["reconstruction"]
    assert details["held_out"]["kept"] <= details["held_out"]["before"]


def test_texts_in_one_batch_are_told_that_nothing_is_held_out(tmp_path, capsys) -> None:
    settings = {"method": "auto", "refine": True, "weight_bits": 4, "activation_bits": 4}
    calibration = {"examples": 8, "batch_size": 8}
    run = simulated.run_quantize(tmp_path, calibration=calibration, **settings)
    assert "reconstruction" not in run.metrics
    assert "nothing is reconstructed" in capsys.readouterr().err


def test_integers_stay_and_everything_around_them_moves(runs) -> None:
    from safetensors.torch import load_file

    stored = {
        name: load_file(runs[name].folder / "weights.safetensors") for name in ("plain", "learned")
    }
    packed = [name for name in stored["plain"] if name.endswith(".packed")]
    steps = [n for n in stored["plain"] if n.endswith("query.scale") or n.endswith("query.bias")]
    assert packed and all(
        torch.equal(stored["plain"][name], stored["learned"][name]) for name in packed
    )
    assert all(not torch.equal(stored["plain"][n], stored["learned"][n]) for n in steps)


def test_hidden_states_judge_whatever_the_few_logits_say(tmp_path, monkeypatch) -> None:
    from attar.quantization.learning import reconstruction

    told = iter([(5.0, 1.0), (4.0, 9.0), (6.0, 0.0), (3.0, 2.0), (3.5, 0.5)])
    monkeypatch.setattr(
        reconstruction._Reconstruction,
        "errors",
        lambda self, batches: reconstruction._Errors(*next(told)),
    )
    run = simulated.run_quantize(
        tmp_path, method="auto", refine=True, weight_bits=6, activation_bits=6, epochs=4
    )
    found = run.metrics["reconstruction"]
    assert found["kept_epoch"] == 3
    held_out = {name: found["held_out"][name] for name in ("before", "kept")}
    assert held_out == {"before": 5.0, "kept": 3.0}
    assert (found["held_out"]["logits_before"], found["held_out"]["logits_kept"]) == (1.0, 2.0)


def test_a_step_on_integers_has_its_exact_gradient() -> None:
    """LSQ's would be 0: a weight that lies on its grid has no rounding error."""
    import tiny
    from attar.models.simulated.qparams import Bits
    from attar.quantization.learning.reconstruction import _only_linear
    from attar.quantization.learning.steps_on_integers import (
        learned_steps,
        put_steps_on_integers_,
    )
    from attar.quantization.weights.nearest import put_on_grid_, quantize_weights

    source = tiny.tiny_model("bert")
    weights = quantize_weights(source, Bits(weight=4, embedding=4, activation=8))
    linear = _only_linear(weights)
    put_on_grid_(source, weights)
    wanted = source(**tiny.tiny_batch()).logits.detach()
    put_steps_on_integers_(source, linear)
    found = source(**tiny.tiny_batch()).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    steps = learned_steps(source, linear)
    assert all(torch.equal(steps[name], weights.scales[name]) for name in steps)

    model = source.double()
    step = model.bert.encoder.layer[0].output.dense.step
    (slope,) = torch.autograd.grad(model(**tiny.tiny_batch()).logits.square().sum(), step)
    with torch.no_grad():
        move = 1e-6 * step
        ends = []
        for sign in (1, -2):
            step += sign * move
            ends.append(model(**tiny.tiny_batch()).logits.square().sum())
        secant = (ends[0] - ends[1]) / 2
    torch.testing.assert_close((slope * move).sum(), secant, rtol=1e-4, atol=1e-12)
    assert float(slope.abs().max()) > 0
