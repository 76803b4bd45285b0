"""Reconstruction: begins where rounding left it, and is kept only where held-out texts gain."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import simulated


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, simulated.QuantizedRun]:
    root = tmp_path_factory.mktemp("auto")
    texts = {"examples": 48, "batch_size": 8}
    bits = {"method": "auto", "weight_bits": 4, "activation_bits": 4, "calibration": texts}
    return {
        "plain": simulated.run_quantize(root, **bits, refine=False),
        "learned": simulated.run_quantize(root, **bits, epochs=20),
        "too fast": simulated.run_quantize(root, **bits, epochs=2, learning_rate=1e3),
    }


def test_held_out_texts_gain_or_the_start_is_kept(runs) -> None:
    details = runs["learned"].metrics["reconstruction"]
    assert details["kept_epoch"] > 0
    assert details["held_out"]["kept"] < details["held_out"]["before"]
    assert runs["learned"].metrics["logits_sqnr_db"] > runs["plain"].metrics["logits_sqnr_db"]


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


def test_a_weight_begins_inside_the_cell_of_its_integer() -> None:
    import tiny
    from attar.models.simulated.qparams import Bits
    from attar.numerics.affine import QParams, quantize
    from attar.quantization.learning.reconstruction import _begin_inside_cells_, _only_linear
    from attar.quantization.weights.nearest import quantize_weights

    model, source = tiny.tiny_model("bert"), tiny.tiny_model("bert")
    weights = _only_linear(quantize_weights(source, Bits(weight=3, embedding=3, activation=8)))
    entry = weights.entries[0]
    moved = {
        **weights.integers,
        entry.fqn: (weights.integers[entry.fqn] - 1).clamp(entry.quant_min),
    }
    weights = replace(weights, integers=moved)
    _begin_inside_cells_(model, source, weights)
    parameters = dict(model.named_parameters())
    for one in weights.entries:
        zero = torch.zeros_like(weights.scales[one.fqn], dtype=torch.int32)
        grid = QParams(weights.scales[one.fqn], zero, one.quant_min, one.quant_max)
        assert torch.equal(quantize(parameters[one.fqn], grid, 0), weights.integers[one.fqn])


@pytest.mark.parametrize("family", ["roberta", "bart"])
def test_every_family_of_classifiers_is_reconstructed(tmp_path, family: str) -> None:
    settings = {"method": "auto", "weight_bits": 4, "activation_bits": 4, "epochs": 1}
    run = simulated.run_quantize(tmp_path, family, **settings)
    details = run.metrics["reconstruction"]
    assert details["held_out"]["kept"] <= details["held_out"]["before"]


def test_texts_in_one_batch_are_told_that_nothing_is_held_out(tmp_path, capsys) -> None:
    settings = {"method": "auto", "weight_bits": 4, "activation_bits": 4}
    calibration = {"examples": 8, "batch_size": 8}
    run = simulated.run_quantize(tmp_path, calibration=calibration, **settings)
    assert "reconstruction" not in run.metrics
    assert "nothing is reconstructed" in capsys.readouterr().err


def test_weights_whose_rounding_was_turned_begin_away_from_the_cells_end() -> None:
    """GPTQ rounds many weights to the far side; at the end of the cell one small update would turn
    them all back.
    """
    import tiny
    from attar.models.simulated.qparams import Bits
    from attar.quantization.learning.reconstruction import (
        CELL,
        _begin_inside_cells_,
        _only_linear,
    )
    from attar.quantization.weights.nearest import quantize_weights

    model, source = tiny.tiny_model("bert"), tiny.tiny_model("bert")
    weights = _only_linear(quantize_weights(source, Bits(weight=4, embedding=4, activation=8)))
    turned = {name: integers + 1 for name, integers in weights.integers.items()}
    _begin_inside_cells_(model, source, replace(weights, integers=turned))
    parameters = dict(model.named_parameters())
    for entry in weights.entries:
        places = parameters[entry.fqn] / weights.scales[entry.fqn][:, None] - turned[entry.fqn]
        assert float(places.detach().abs().max()) <= CELL + 1e-4
        assert 0.5 - CELL > 0.1  # ten updates at a rate of a hundredth of a step


def test_hidden_states_judge_and_not_the_few_logits(tmp_path) -> None:
    """The error that is told is a mean over blocks of shares of variance: below 1 at 8 bits."""
    run = simulated.run_quantize(tmp_path, method="auto", weight_bits=8, activation_bits=8)
    held_out = run.metrics["reconstruction"]["held_out"]
    assert 0 < held_out["kept"] <= held_out["before"] < 0.01
