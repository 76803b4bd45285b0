"""Laws of the terms on predictions: which rows count, and that chunks of them leave no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attar.losses import chunked_sum
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

ROUNDING = 1e-12
"""Relative: float64 sums in another order."""
B, S, V = 3, 5, 11
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


@every_kind
@pytest.mark.parametrize("rows_of_a_chunk", [1, 3])
def test_chunks_of_any_size_give_the_value_and_gradient_of_all_rows_at_once(
    config: LossConfig, rows_of_a_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, gradient = evaluate(config)
    monkeypatch.setattr(chunked_sum, "LEAST_VALUES", rows_of_a_chunk * V)
    chunked: list[int] = []
    inner = chunked_sum._ByChunks.apply
    monkeypatch.setattr(
        chunked_sum._ByChunks, "apply", lambda *args: chunked.append(len(args[2])) or inner(*args)
    )
    cut, cut_gradient = evaluate(config)
    assert chunked == [-(-8 // rows_of_a_chunk)]
    torch.testing.assert_close(cut.examples, whole.examples, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(cut_gradient, gradient, rtol=ROUNDING, atol=ROUNDING)


def test_chunks_are_few_and_cover_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_sum, "LEAST_VALUES", 1)
    monkeypatch.setattr(chunked_sum, "MOST_CHUNKS", 3)
    seen: list[int] = []

    def first_word(own: torch.Tensor) -> torch.Tensor:
        seen.append(len(own))
        return own[:, 0]

    given, counted = logits(0).requires_grad_(), LABELS != -1
    found = chunked_sum.sum_by_example(first_word, counted, given)
    assert seen == [3, 3, 2]
    expected = (given[..., 0] * counted).sum(dim=1)
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("learns", [True, False])
def test_chunks_find_no_gradient_where_none_is_asked_for(
    learns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_sum, "LEAST_VALUES", V)
    seen: list[bool] = []

    def first_word(own: torch.Tensor) -> torch.Tensor:
        seen.append(own.requires_grad)
        return own[:, 0]

    found = chunked_sum.sum_by_example(first_word, LABELS != -1, logits(0).requires_grad_(learns))
    assert set(seen) == {learns} and found.requires_grad == learns


def test_chunks_share_the_logits_gradient_with_other_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradient() -> torch.Tensor:
        student = logits(0).requires_grad_()
        loss = TotalLoss([CrossEntropy(weight=0.3), ForwardKl(weight=2.0)], "causal_lm")
        loss(
            Outputs(student), Outputs(logits(1)), TARGETS, count_units(LABELS, {})
        ).total.backward()
        assert student.grad is not None
        return student.grad

    whole = gradient()
    monkeypatch.setattr(chunked_sum, "LEAST_VALUES", V)
    torch.testing.assert_close(gradient(), whole, rtol=ROUNDING, atol=ROUNDING)


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
