"""Laws of the divergences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from attar.losses.predictions import (
    forward_kl,
    jsd,
    reverse_kl,
    score_difference,
    soft_cross_entropy,
)

ROUNDING = 1e-12
"""float64 sums over a few classes."""
EXACT: dict[str, Any] = {"rtol": ROUNDING, "atol": ROUNDING}
DIVERGENCES = (forward_kl, reverse_kl, jsd)
ALL = (*DIVERGENCES, soft_cross_entropy)
Compare = Callable[..., torch.Tensor]
divergences = pytest.mark.parametrize("compare", DIVERGENCES)
all_of_them = pytest.mark.parametrize("compare", ALL)


def logits(seed: int, *, size: tuple[int, int] = (5, 7)) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


@divergences
def test_a_divergence_is_zero_when_student_equals_teacher(compare: Compare) -> None:
    assert compare(logits(0), logits(0), 2.0).abs().max() <= ROUNDING
    assert compare(logits(0), logits(1), 2.0).min() > 0.01


@divergences
def test_rounding_leaves_no_divergence_below_zero(compare: Compare) -> None:
    """In float32, where the sums of nearly equal distributions come out on both sides of 0."""
    student = logits(0, size=(2000, 7)).float()
    nearby = student + 1e-4 * logits(1, size=(2000, 7)).float()
    found = compare(student, nearby)
    assert found.min() == 0
    assert found.max() < 1e-5


@divergences
def test_a_divergence_is_zero_when_logits_differ_by_a_constant(compare: Compare) -> None:
    assert compare(logits(0) + 5.0, logits(0)).abs().max() <= ROUNDING


@divergences
@settings(deadline=None, max_examples=50)  # a busy machine is no failure
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.1, 20))
def test_a_divergence_is_never_negative(compare: Compare, seed: int, temperature: float) -> None:
    assert (compare(logits(seed), logits(seed + 1), temperature) >= 0).all()


@all_of_them
@settings(deadline=None, max_examples=50)  # a busy machine is no failure
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.1, 20))
def test_at_a_temperature_it_is_its_square_times_that_of_divided_logits(
    compare: Compare, seed: int, temperature: float
) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    divided = compare(student / temperature, teacher / temperature)
    torch.testing.assert_close(
        compare(student, teacher, temperature), temperature**2 * divided, rtol=1e-12, atol=1e-12
    )


@all_of_them
def test_gradient_reaches_the_student_only(compare: Compare) -> None:
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    compare(student, teacher).sum().backward()
    assert student.grad is not None and teacher.grad is None
    assert student.grad.abs().max() > 0


def test_gradient_of_a_score_reaches_the_student_only() -> None:
    score, gold = logits(0, size=(4, 1)).requires_grad_(), logits(1, size=(4, 1)).requires_grad_()
    score_difference(score, gold).sum().backward()
    assert score.grad is not None and gold.grad is None


def test_forward_kl_agrees_with_torch() -> None:
    student, teacher = logits(0), logits(1)
    theirs = functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(forward_kl(student, teacher), theirs, **EXACT)


def test_forward_kl_puts_the_teacher_first() -> None:
    sure, unsure = torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert forward_kl(unsure, sure).item() == pytest.approx(0.6931, abs=1e-3)
    assert forward_kl(sure, unsure).item() > 5


def test_reverse_kl_is_forward_kl_with_the_two_exchanged() -> None:
    student, teacher = logits(0), logits(1)
    exchanged = forward_kl(teacher, student, 3.0)
    torch.testing.assert_close(reverse_kl(student, teacher, 3.0), exchanged, **EXACT)


def test_jsd_is_symmetric_and_half_of_both_ways_to_the_mean() -> None:
    student, teacher = logits(0), logits(1)
    torch.testing.assert_close(jsd(student, teacher), jsd(teacher, student), **EXACT)
    mean = ((student.softmax(-1) + teacher.softmax(-1)) / 2).log()
    halves = (forward_kl(mean, teacher) + forward_kl(mean, student)) / 2
    torch.testing.assert_close(jsd(student, teacher), halves, **EXACT)


@settings(deadline=None, max_examples=50)  # a busy machine is no failure
@given(seed=st.integers(0, 2**31), size=st.floats(0.1, 300), temperature=st.floats(0.1, 20))
def test_jsd_is_at_most_the_logarithm_of_two(seed: int, size: float, temperature: float) -> None:
    bound = math.log(2) * temperature**2
    found = jsd(logits(seed) * size, logits(seed + 1) * size, temperature)
    assert found.max() <= bound * (1 + ROUNDING)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_cross_entropy_is_forward_kl_and_the_teachers_entropy(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    p = (teacher / temperature).softmax(-1)
    entropy = -(p * p.log()).sum(-1) * temperature**2
    expected = forward_kl(student, teacher, temperature) + entropy
    found = soft_cross_entropy(student, teacher, temperature)
    torch.testing.assert_close(found, expected, **EXACT)


def test_soft_cross_entropy_is_summed_over_classes_not_averaged() -> None:
    for classes in (2, 3, 50):
        certain = torch.full((1, classes), -1e3)
        certain[0, 0] = 1e3
        value = soft_cross_entropy(torch.zeros(1, classes), certain).item()
        assert value == pytest.approx(math.log(classes))


def test_soft_cross_entropy_has_the_gradient_of_forward_kl() -> None:
    gradients = []
    for compare in (soft_cross_entropy, forward_kl):
        student = logits(0).requires_grad_()
        compare(student, logits(1), 2.0).sum().backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients)


def test_score_difference_is_the_square_and_zero_at_equality() -> None:
    assert score_difference(torch.tensor([[3.0]]), torch.tensor([[1.0]])).tolist() == [4.0]
    assert score_difference(logits(0, size=(4, 1)), logits(0, size=(4, 1))).abs().max() == 0


@all_of_them
def test_shapes_of_divergences_are_checked_under_pytest(compare: Compare) -> None:
    with pytest.raises(Exception, match=compare.__name__):
        compare(torch.zeros(2, 3), torch.zeros(2, 4))
