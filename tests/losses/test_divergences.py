"""Laws of the divergences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from attar.losses.divergences import forward_kl, score_difference

ROUNDING = 1e-12
"""float64 sums over a few classes."""


def logits(seed: int, *, size: tuple[int, int] = (5, 7)) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def test_forward_kl_is_zero_when_student_equals_teacher() -> None:
    assert forward_kl(logits(0), logits(0), 2.0).abs().max() <= ROUNDING


def test_forward_kl_is_zero_when_logits_differ_by_a_constant() -> None:
    assert forward_kl(logits(0) + 5.0, logits(0)).abs().max() <= ROUNDING


@settings(deadline=None, max_examples=50)  # a busy machine is no failure
@given(st.integers(0, 2**31), st.floats(0.1, 20))
def test_forward_kl_is_never_negative(seed: int, temperature: float) -> None:
    assert (forward_kl(logits(seed), logits(seed + 1), temperature) >= 0).all()


@settings(deadline=None, max_examples=50)  # a busy machine is no failure
@given(st.integers(0, 2**31), st.floats(0.1, 20))
def test_forward_kl_at_a_temperature_is_its_square_times_that_of_divided_logits(
    seed: int, temperature: float
) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    divided = forward_kl(student / temperature, teacher / temperature)
    torch.testing.assert_close(
        forward_kl(student, teacher, temperature), temperature**2 * divided, rtol=1e-12, atol=1e-12
    )


def test_forward_kl_agrees_with_torch() -> None:
    student, teacher = logits(0), logits(1)
    theirs = functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(forward_kl(student, teacher), theirs)


def test_forward_kl_puts_the_teacher_first() -> None:
    sure, unsure = torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert forward_kl(unsure, sure).item() == pytest.approx(0.6931, abs=1e-3)
    assert forward_kl(sure, unsure).item() > 5


def test_gradient_reaches_the_student_only() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    forward_kl(student, teacher).sum().backward()
    assert student.grad is not None and teacher.grad is None
    score, gold = logits(0, size=(4, 1)).requires_grad_(), logits(1, size=(4, 1)).requires_grad_()
    score_difference(score, gold).sum().backward()
    assert score.grad is not None and gold.grad is None


def test_score_difference_is_the_square_and_zero_at_equality() -> None:
    assert score_difference(torch.tensor([[3.0]]), torch.tensor([[1.0]])).tolist() == [4.0]
    assert score_difference(logits(0, size=(4, 1)), logits(0, size=(4, 1))).abs().max() == 0


def test_shapes_of_divergences_are_checked_under_pytest() -> None:
    with pytest.raises(Exception, match="forward_kl"):
        forward_kl(torch.zeros(2, 3), torch.zeros(2, 4))
