"""Laws of the terms on predictions: which rows count, and that it leaves no trace how their logits
come about."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attar.numerics.logits
from attar.losses.config import (
    CrossEntropy,
    ForwardKl,
    Jsd,
    LossConfig,
    ReverseKl,
    SoftCrossEntropy,
)
from attar.losses.targets import Outputs, Targets, count_units
from attar.losses.total import TotalLoss
from attar.numerics.logits import Head, HeadLogits, LazyLogits

ROUNDING = 1e-12
"""Relative: float64 sums in another order."""
B, S, V, D = 3, 5, 11, 4
LABELS = torch.tensor([[4, 2, -1, -1, 7], [-1] * 5, [1, 1, 1, 10, 0]])
TARGETS = Targets(LABELS, {"decoder": torch.ones(B, S, dtype=torch.int64)})
KINDS: tuple[LossConfig, ...] = (
    CrossEntropy(),
    ForwardKl(temperature=2),
    ReverseKl(),
    Jsd(temperature=3),
    SoftCrossEntropy(),
)
every_kind = pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)


def logits(seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, S, V, generator=g, dtype=torch.float64) * 3


def evaluate(config: LossConfig, objective: str = "causal_lm") -> Any:
    """The values, and the gradient of the total in the student's logits."""
    student = logits(0).requires_grad_()
    counts = count_units(LABELS, {"decoder": B * S})
    loss = TotalLoss([config], objective)
    values = loss(Outputs(student), Outputs(logits(1)), TARGETS, counts)
    values.total.backward()
    assert student.grad is not None
    return values, student.grad


@every_kind
def test_of_tokens_the_labelled_count_and_each_example_has_its_own_sum(config: LossConfig) -> None:
    values, gradient = evaluate(config)
    counted = LABELS != -1
    flat = Targets(LABELS[counted], {})
    by_row = TotalLoss([config], "classification")(
        *(Outputs(logits(seed)[counted]) for seed in (0, 1)), flat, count_units(flat.labels, {})
    )
    torch.testing.assert_close(values.total, by_row.total, rtol=ROUNDING, atol=ROUNDING)
    owners = torch.nonzero(counted)[:, 0]
    for example in range(B):
        own = by_row.examples[owners == example].sum()
        torch.testing.assert_close(values.examples[example], own, rtol=ROUNDING, atol=ROUNDING)
    assert values.examples[1] == 0
    assert gradient[~counted].abs().max() == 0 and gradient[counted].abs().min() > 0


class OneAtATime(LazyLogits):
    """Logits that are given only where they are asked for, at most one block of them."""

    def __init__(self, logits: torch.Tensor, most: int) -> None:
        self._logits, self._most = logits, most
        self.shape, self.dtype = logits.shape, logits.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        assert len(index[0]) <= self._most
        return self._logits[index]


@pytest.mark.parametrize("rows_of_a_block", [1, 3, 100])
def test_terms_together_over_a_head_have_the_values_and_gradients_of_whole_logits(
    rows_of_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = torch.Generator().manual_seed(2)
    hidden, weight = (torch.randn(*size, D, generator=g).double() for size in ((B, S), (V,)))
    loss = TotalLoss(
        [config.model_copy(update={"weight": 0.3 + i}) for i, config in enumerate(KINDS)],
        "causal_lm",
    )
    found: list[tuple[torch.Tensor, ...]] = []
    for in_blocks in (False, True):
        leaves = [x.clone().requires_grad_() for x in (hidden, weight)]
        if in_blocks:
            monkeypatch.setattr(attar.numerics.logits, "BLOCK_BYTES", 4 * V * rows_of_a_block)
            student = Outputs(HeadLogits(Head(leaves[1]), leaves[0]))
            teacher = Outputs(OneAtATime(logits(1), rows_of_a_block))
        else:
            student, teacher = Outputs(leaves[0] @ leaves[1].t()), Outputs(logits(1))
        values = loss(student, teacher, TARGETS, count_units(LABELS, {"decoder": B * S}))
        values.total.backward()
        grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
        found.append((values.examples, *values.terms.values(), *grads))
    assert len(found[0]) == 1 + len(KINDS) + 2
    for whole, blocks in zip(*found, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=ROUNDING, atol=ROUNDING)


def test_a_batch_without_any_label_has_a_loss_and_a_gradient_of_zero() -> None:
    weight = torch.ones(V, 2, requires_grad=True)
    student = Outputs(HeadLogits(Head(weight), torch.ones(1, 2, 2)))
    targets = Targets(torch.full((1, 2), -1), {"decoder": torch.ones(1, 2, dtype=torch.int64)})
    values = TotalLoss([CrossEntropy()], "causal_lm")(
        student, None, targets, count_units(targets.labels, {"decoder": 2})
    )
    values.total.backward()
    assert values.total == 0 and weight.grad is not None and weight.grad.abs().max() == 0


def regression(config: LossConfig) -> tuple[list[float], torch.Tensor]:
    student = torch.tensor([[1.0], [2.0], [5.0]], requires_grad=True)
    teacher = torch.tensor([[3.0], [2.0], [9.0]])
    labels = torch.tensor([0.0, 2.5, float("nan")])
    targets = Targets(labels, {"encoder": torch.ones(3, 2, dtype=torch.int64)})
    counts = count_units(labels, {"encoder": 6})
    values = TotalLoss([config], "regression")(Outputs(student), Outputs(teacher), targets, counts)
    values.total.backward()
    assert student.grad is not None
    return values.examples.tolist(), student.grad[:, 0]


@pytest.mark.parametrize(
    "config", [ForwardKl(), ReverseKl(), Jsd(), SoftCrossEntropy()], ids=lambda config: config.kind
)
def test_a_score_is_compared_with_the_teachers_whatever_the_divergence(config: LossConfig) -> None:
    examples, _ = regression(config)
    assert examples == pytest.approx([4 / 3, 0, 16 / 3])


def test_a_score_is_compared_with_the_gold_one_where_the_recipe_says_so() -> None:
    examples, gradient = regression(SoftCrossEntropy(score="gold"))
    assert examples == pytest.approx([1 / 2, 0.25 / 2, 0])
    assert gradient.tolist() == pytest.approx([1.0, -0.5, 0])
