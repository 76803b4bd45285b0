"""The gradient of a batch does not depend on how it is cut into micro-batches."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

import tiny
from attar.losses.config import (
    AttentionMse,
    CrossEntropy,
    EmbeddingMse,
    Eofd,
    ForwardKl,
    HiddenCosine,
    HiddenMse,
    Jsd,
    LossConfig,
    PolicyGradient,
    RelationKl,
    ReverseKl,
    SensitivityMse,
    SoftCrossEntropy,
)
from attar.losses.targets import SampledTokens, Targets, count_units
from attar.losses.term import Pair
from attar.losses.total import TotalLoss
from attar.recipe.checking.mistakes import leaves
from attar.training.forward import forward, shape_of

FLOAT64_SUMS = 1e-12
"""Relative: sums of a few hundred float64 terms in another order."""
LENGTHS = np.array([3, 9, 5, 12, 4, 7, 2, 12])
LABELS = torch.tensor([0, 1, -1, 1, 0, -1, 1, 0])
CASES: list[list[LossConfig]] = [
    [CrossEntropy()],
    [ForwardKl(temperature=3)],
    [ReverseKl()],
    [Jsd()],
    [SoftCrossEntropy()],
    [HiddenMse()],
    [HiddenCosine()],
    [EmbeddingMse()],
    [Eofd(power=1)],
    [Eofd(std="running")],
    [SensitivityMse()],
    [AttentionMse()],
    [RelationKl()],
    [RelationKl(relations=("query", "key", "value"), teacher_block=0, heads=2)],
    [CrossEntropy(), Eofd(), AttentionMse(heads="mean")],
]


def gradient(student: Any, teacher: Any, losses: list[LossConfig], size: int) -> torch.Tensor:
    """The whole batch's gradient, accumulated over micro-batches, each with its own padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (8, 12), generator=generator)
    pair = Pair(shape_of(student), shape_of(teacher))
    loss = TotalLoss(losses, "classification", pair).double()  # projections and buffers too
    counts = count_units(LABELS, dict.fromkeys(pair.student, int(LENGTHS.sum())))
    student.zero_grad()
    parts = []
    for begin in range(0, 8, size):
        rows = slice(begin, begin + size)
        width = LENGTHS[rows].max()
        mask = (torch.arange(width) < torch.tensor(LENGTHS[rows])[:, None]).long()
        own = torch.where(mask.bool(), ids[rows, :width], 1)
        own[torch.arange(len(mask)), mask.sum(dim=1) - 1] = tiny.EOS
        inputs = {"input_ids": own, "attention_mask": mask}
        with torch.no_grad():
            taught = forward(teacher, inputs, loss.needs)
        targets = Targets(LABELS[rows], dict.fromkeys(pair.student, mask))
        parts.append((inputs, taught, targets))
    loss.look_at([taught for _, taught, _ in parts], [targets for *_, targets in parts])
    for inputs, taught, targets in parts:
        given = forward(student, inputs, loss.needs)
        loss(given, taught, targets, counts).total.backward()
    grads = [p.grad for p in (*student.parameters(), *loss.parameters()) if p.grad is not None]
    return torch.cat([grad.flatten() for grad in grads])


def kinds(losses: list[LossConfig]) -> str:
    return "+".join(loss.kind for loss in losses)


def require_same_gradient_for_every_cut(
    student: Any, teacher: Any, losses: list[LossConfig]
) -> None:
    whole = gradient(student, teacher, losses, 8)
    assert whole.norm() > 0
    for size in (1, 3):
        cut = gradient(student, teacher, losses, size)
        assert (cut - whole).norm() <= FLOAT64_SUMS * whole.norm()


def test_every_kind_of_loss_is_tried() -> None:
    kinds = {leaf.model_fields["kind"].default for leaf in leaves(get_args(LossConfig)[0])}
    apart = {"policy_gradient", "contrastive", "cosine", "vector_mse", "similarity_kl"}
    assert {loss.kind for losses in CASES for loss in losses} | apart == kinds


@pytest.mark.parametrize("losses", CASES, ids=kinds)
def test_micro_batches_of_any_size_give_the_gradient_of_the_whole_batch(
    losses: list[LossConfig],
) -> None:
    student, teacher = (tiny.tiny_model("bert", seed=seed).double() for seed in (0, 1))
    require_same_gradient_for_every_cut(student, teacher, losses)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
@pytest.mark.parametrize("losses", [[Eofd()], [AttentionMse()], [RelationKl()]], ids=kinds)
def test_so_they_do_in_causal_stacks_and_in_two_stacks(
    family: str, losses: list[LossConfig]
) -> None:
    student, teacher = (tiny.tiny_model(family, seed=seed).double() for seed in (0, 1))
    require_same_gradient_for_every_cut(student, teacher, losses)


def test_so_they_do_where_a_projection_learns() -> None:
    student = tiny.tiny_model("bert", hidden_size=16).double()
    teacher = tiny.tiny_model("bert", seed=1).double()
    require_same_gradient_for_every_cut(student, teacher, [Eofd(), HiddenCosine()])


def test_so_does_the_policy_gradient_of_continuations_of_any_length() -> None:
    student, teacher = (tiny.tiny_language_model("llama", seed=seed).double() for seed in (0, 1))
    loss = TotalLoss([PolicyGradient()], "causal_lm")
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (8, 13), generator=g)
    mask = (torch.arange(12) < torch.tensor(LENGTHS)[:, None]).long()
    labels = torch.where((mask > 0) & (torch.arange(12) >= 2), ids[:, 1:], -1)
    known = (torch.randn(3, 8, 12, generator=g).double() - 3).unbind()
    counts = count_units(labels, {"decoder": int(mask.sum())})

    def gradient_of(size: int) -> torch.Tensor:
        student.zero_grad()
        for begin in range(0, 8, size):
            rows = slice(begin, begin + size), slice(0, int(LENGTHS[begin : begin + size].max()))
            inputs = {"input_ids": ids[:, :-1][rows], "attention_mask": mask[rows]}
            with torch.no_grad():
                taught = forward(teacher, inputs, loss.needs)
            sampled = SampledTokens(labels[rows], *(values[rows] for values in known))
            targets = Targets(labels[rows], {"decoder": mask[rows]}, sampled)
            loss(forward(student, inputs, loss.needs), taught, targets, counts).total.backward()
        grads = [p.grad for p in student.parameters() if p.grad is not None]
        return torch.cat([grad.flatten() for grad in grads])

    whole = gradient_of(8)
    assert whole.norm() > 0
    for size in (1, 3):
        assert (gradient_of(size) - whole).norm() <= FLOAT64_SUMS * whole.norm()
