"""The two-step procedure of an encoder: a first step learns what is inside the teacher, a second
one goes on from its folder by the teacher's predictions; both from augmented rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
import training_runs
from attar.distillation.config import AugmentStep
from attar.distillation.run import augment
from attar.training import loop

ROWS, COPIES = 48, 1
INSIDE = [
    {"kind": "eofd", "layer_map": {1: 2}},  # hidden state 0 is embedding_mse's
    {"kind": "embedding_mse"},
    {"kind": "attention_mse"},
]
PREDICTIONS = [{"kind": "soft_cross_entropy", "temperature": 1.0}]
NARROWED = {"from": "teacher", "keep_blocks": [1], "hidden_size": 16, "intermediate_size": 24}
LOUDER = 8
HEAD = ("classifier.", "bert.pooler.")
"""What only predictions look at."""

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Step:
    """A training step that has ended."""

    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    before: Weights
    after: Weights
    """As the model folder has them."""
    projections: list[tuple[int, ...]]
    """Shapes of what the losses learned beside the student."""


def run_step(place: Path, out: Path, **settings: Any) -> Step:
    """One step below `out`, its weights looked at as it begins."""
    seen: dict[str, Any] = {}
    inner = loop.Loop.run

    def watched(self: Any) -> Any:
        job = self._job
        seen["weights"] = {name: t.clone() for name, t in job.model.state_dict().items()}
        seen["projections"] = [tuple(tensor.shape) for tensor in job.loss.parameters()]
        return inner(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "run", watched)
        metrics = training_runs.run_training(
            out,
            recipe_folder=place,
            teacher="teacher",
            data="made",
            keep="last",
            weight_decay=0.1,  # must not reach what has no gradient
            **settings,
        )
    after = load_file(out / "out" / "model" / "model.safetensors")
    history = training_runs.read_history(out)
    return Step(metrics, history, seen["weights"], after, seen["projections"])


def write_teacher(folder: Path) -> None:
    """At BERT's initial weights every token looks at all others alike."""
    file = tiny.write_tiny_bert(folder, seed=1) / "model.safetensors"
    tensors = load_file(file)
    louder = {name: t * (LOUDER if t.ndim > 1 else 1) for name, t in tensors.items()}
    save_file(louder, file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Step, Step]:
    """The first and the second step. Read-only by agreement."""
    place = tmp_path_factory.mktemp("two_steps")
    training_runs.write_films(place / "films", train=ROWS)
    write_teacher(place / "teacher")
    tiny.write_tiny_masked_lm(place / "lm")
    context = training_runs.context_for(place / "made", recipe_folder=place)
    context.scratch.mkdir(parents=True)
    asked = {"model": "lm", "data": "films", "copies": COPIES, "top": 5, "max_length": 24}
    augment(AugmentStep.model_validate(asked | {"precision": "fp32"}), context)
    made = place / "made" / "out"
    first = run_step(
        *(place, place / "first"), model=NARROWED, made=made, losses=INSIDE, max_steps=40
    )
    inside = {"inside": place / "first" / "out"}
    second = run_step(
        *(place, place / "second"), model="inside", inputs=inside, made=made, losses=PREDICTIONS
    )
    return first, second


def moved(step: Step) -> set[str]:
    return {name for name, t in step.after.items() if not torch.equal(t, step.before[name])}


def test_the_first_step_moves_all_but_the_head(chain: tuple[Step, Step]) -> None:
    first, _ = chain
    still = first.after.keys() - moved(first)
    assert still == {name for name in first.after if name.startswith(HEAD)}


def test_the_second_step_begins_where_the_first_one_ended_and_moves_the_head(
    chain: tuple[Step, Step],
) -> None:
    first, second = chain
    assert second.before.keys() == first.after.keys() == second.after.keys()
    assert all(torch.equal(second.before[name], t) for name, t in first.after.items())
    assert {name for name in second.after if name.startswith(HEAD)} <= moved(second)


def test_both_steps_keep_their_last_state(chain: tuple[Step, Step]) -> None:
    for step, steps in zip(chain, (40, 12), strict=True):
        assert step.metrics["kept_step"] == step.metrics["steps"] == steps


def test_both_steps_learn_from_the_rows_and_their_copies(chain: tuple[Step, Step]) -> None:
    for step in chain:
        assert step.metrics["data"]["train_rows"] == ROWS * (1 + COPIES)


def test_projections_serve_the_first_step_and_are_in_no_model_folder(
    chain: tuple[Step, Step],
) -> None:
    first, second = chain
    assert first.projections == [(32, 16), (32, 16)], "of hidden states and of embeddings"
    assert second.projections == []
    for step in chain:
        assert step.after.keys() == step.before.keys()
        assert step.metrics["num_params"] == sum(tensor.numel() for tensor in step.after.values())


def test_a_narrowed_student_learns_states_embeddings_and_attention_together(
    chain: tuple[Step, Step],
) -> None:
    first, _ = chain
    assert first.after["bert.encoder.layer.0.intermediate.dense.weight"].shape == (24, 16)
    losses = [line["losses"] for line in first.history if "losses" in line]
    for kind in ("eofd", "embedding_mse", "attention_mse"):
        begin, end = (sum(line[kind] for line in part) for part in (losses[:5], losses[-5:]))
        assert 0 < end < 0.9 * begin, kind
