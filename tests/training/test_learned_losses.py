"""Losses that learn or remember, in the real loop: what they hold is trained, saved and resumed
with the run, and left out of the artifact.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from attar.errors import ModelError, NonFiniteError, StoppedError
from attar.training import loop
from attar.training.saving.checkpoint import CheckpointStore
from training_runs import prepare, read_history, read_weights, run_training

EOFD = {"kind": "eofd", "std": "running", "power": 1.0}
FACT = "eofd.encoder.effective_dimensions"


def place_in(folder: Path) -> Path:
    """A folder with a teacher, and the config of a student of half its width."""
    prepare(folder)
    tiny.write_tiny_bert(folder / "teacher", seed=1)
    return folder


def narrow(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "bert" / "config.json").read_text())
    return {"config": config | {"hidden_size": 16}, "tokenizer": "bert"}


def distil(folder: Path, **settings: Any) -> dict[str, Any]:
    losses = settings.pop("losses", [EOFD, {"kind": "hidden_cosine"}])
    model = settings.pop("model", narrow(folder))
    return run_training(folder, model=model, teacher="teacher", losses=losses, **settings)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return place_in(tmp_path)


def learned(folder: Path) -> dict[str, torch.Tensor]:
    """What the loss holds in the newest checkpoint."""
    from attar.progress import Progress

    found = CheckpointStore(folder / "scratch", Progress(quiet=True)).newest()
    assert found is not None
    return {name: t for name, t in found.weights.items() if name.startswith("loss.")}


@pytest.mark.parametrize("poll", [5, 9])
def test_a_stopped_run_with_running_spreads_and_projections_goes_on_bit_for_bit(
    place: Path, tmp_path: Path, poll: int
) -> None:
    distil(place)
    stopped = place_in(tmp_path / "stopped")
    polls = iter(range(1000))
    with pytest.raises(StoppedError):
        distil(stopped, should_stop=lambda: next(polls) == poll)
    held = learned(stopped)
    counts = [int(tensor) for name, tensor in held.items() if name.endswith(".count")]
    assert len(counts) == 3 and len(set(counts)) == 1 and counts[0] > 0
    assert sum("projections" in name for name in held) == 2
    distil(stopped)
    assert read_history(stopped) == read_history(place)
    ours, theirs = read_weights(stopped), read_weights(place)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_running_spread_matters_to_what_is_learned(place: Path, tmp_path: Path) -> None:
    """Or the test above would hold for a spread that nobody reads."""
    distil(place, losses=[EOFD])
    batch = place_in(tmp_path / "batch")
    distil(batch, losses=[EOFD | {"std": "batch"}])
    first, second = (
        [line["facts"][FACT] for line in read_history(folder) if "facts" in line]
        for folder in (place, batch)
    )
    assert first[0] == pytest.approx(second[0], rel=1e-5) and first[-1] != second[-1]


def test_a_projection_learns_and_the_artifact_has_the_student_only(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[Any] = []
    inner = loop.Loop.run

    def watched(self: Any) -> Any:
        losses.append((self._job.loss, [p.detach().clone() for p in self._job.loss.parameters()]))
        return inner(self)

    monkeypatch.setattr(loop.Loop, "run", watched)
    metrics = distil(place, losses=[{"kind": "hidden_mse"}], max_steps=40, keep="last")
    loss, before = losses[0]
    assert [tuple(p.shape) for p in before] == [(32, 16)]
    moved = [(p - q).norm() for p, q in zip(loss.parameters(), before, strict=True)]
    assert min(moved) > 0.1
    values = [line["loss"] for line in read_history(place) if "loss" in line]
    assert sum(values[-5:]) < 0.8 * sum(values[:5])
    weights = read_weights(place)
    assert not [name for name in weights if "loss" in name or "projection" in name]
    assert metrics["num_params"] == sum(tensor.numel() for tensor in weights.values())


def test_the_history_has_the_effective_number_of_dimensions(place: Path) -> None:
    distil(place)
    for line in read_history(place):
        if "loss" in line:
            assert set(line["facts"]) == {FACT, f"{FACT}_last"}
            assert 1 <= line["facts"][FACT] <= 32
            assert set(line["losses"]) == {"eofd", "hidden_cosine"}
    plain = place / "plain"
    prepare(plain)
    run_training(plain, max_steps=2)
    assert not [line for line in read_history(plain) if "facts" in line]


def test_a_line_of_several_steps_has_the_mean_of_their_facts(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.training.saving import history

    distil(place, losses=[EOFD])
    singles = [line["facts"][FACT] for line in read_history(place) if "facts" in line]
    monkeypatch.setattr(history, "TRAINING_LINES", 3)
    thinned = place_in(tmp_path / "thinned")
    distil(thinned, losses=[EOFD])
    lines = [line["facts"][FACT] for line in read_history(thinned) if "facts" in line]
    assert lines == [pytest.approx(sum(singles[i : i + 4]) / 4) for i in (0, 4, 8)]


def test_micro_batches_learn_with_the_spread_of_the_whole_batch(
    place: Path, tmp_path: Path
) -> None:
    cut = place_in(tmp_path / "cut")
    for folder in (place, cut):
        config = json.loads((folder / "bert" / "config.json").read_text())
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            config[name] = 0.0  # dropout masks do depend on the shape of a micro-batch
        (folder / "bert" / "config.json").write_text(json.dumps(config))
    settings = {"losses": [EOFD | {"std": "batch"}], "learning_rate": 1e-3}
    distil(place, **settings)
    distil(cut, **settings, micro_batch_size=3)
    for whole, parts in zip(read_history(place), read_history(cut), strict=True):
        if "loss" in whole:
            assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-4)
            assert parts["facts"] == pytest.approx(whole["facts"], rel=1e-4)


def test_a_step_with_a_loss_that_is_no_number_leaves_no_trace_in_the_spread(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = loop.require_finite_loss

    def third_fails(examples: torch.Tensor, rows: Any, step: int) -> None:
        if step == 3:
            raise NonFiniteError("the loss of row 0 is not finite")
        inner(examples, rows, step)

    monkeypatch.setattr(loop, "require_finite_loss", third_fails)
    with pytest.raises(NonFiniteError, match="after step 3 is saved"):
        distil(place)
    assert any(name.endswith(".count") for name in learned(place))
    monkeypatch.setattr(loop, "require_finite_loss", inner)
    distil(place)
    again = place_in(place / "again")
    distil(again)
    assert read_history(place) == read_history(again)


def test_a_scheduled_weight_follows_the_steps_and_a_resumed_run(
    place: Path, tmp_path: Path
) -> None:
    losses = [
        {"kind": "hidden_mse", "weight": {"from": 1.0, "to": 0.0, "over": 0.5}},
        {"kind": "forward_kl", "weight": {"from": 0.0, "to": 1.0}},
    ]
    distil(place, losses=losses)
    lines = [line["facts"] for line in read_history(place) if "facts" in line]
    fading = [max(1 - step / 6, 0) for step in range(12)]
    assert [line["hidden_mse.weight"] for line in lines] == pytest.approx(fading)
    assert [line["forward_kl.weight"] for line in lines] == pytest.approx(
        [step / 12 for step in range(12)]
    )
    stopped = place_in(tmp_path / "stopped")
    polls = iter(range(1000))
    with pytest.raises(StoppedError):
        distil(stopped, losses=losses, should_stop=lambda: next(polls) == 5)
    distil(stopped, losses=losses)
    assert read_history(stopped) == read_history(place)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([{"kind": "attention_mse"}], r"^attention_mse: .*2 heads.*4"),
        ([{"kind": "relation_kl"}], r"^relation_kl: .*2 heads.*4"),
        ([{"kind": "eofd", "layer_map": {0: 9}}], r"^eofd: .*0 → 9"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_training(
    place: Path, losses: list[dict[str, Any]], message: str
) -> None:
    model = narrow(place)
    model["config"] |= {"num_attention_heads": 2}
    with pytest.raises(ModelError, match=message):
        distil(place, model=model, losses=losses)
    assert not (place / "scratch").exists(), "training had begun"


def test_all_losses_on_the_inside_run_together_in_the_loop(place: Path) -> None:
    kinds = ("hidden_mse", "embedding_mse", "attention_mse", "relation_kl", "reverse_kl", "jsd")
    losses = [{"kind": kind} for kind in (*kinds, "soft_cross_entropy", "eofd")]
    distil(place, model="bert", losses=losses, max_steps=3, precision="bf16")
    lines = [line for line in read_history(place) if "losses" in line]
    assert set(lines[-1]["losses"]) == {loss["kind"] for loss in losses}
    assert all(value > 0 for value in lines[-1]["losses"].values())
