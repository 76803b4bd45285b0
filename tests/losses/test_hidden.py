"""Laws of the hidden-state losses and their layer maps."""

from __future__ import annotations

import pytest
import torch

from attar.errors import ModelError
from attar.losses.states import cosine_distance, resolve_layer_map, squared_distance

ROUNDING = 1e-12
"""float64 sums over a few dimensions."""
B, T, D = 3, 5, 4
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


def states(seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, T, D, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_the_distance_is_zero_when_student_equals_teacher_and_never_negative() -> None:
    (own,), (other,) = states(0, 1), states(1, 1)
    assert squared_distance(own, own, MASK).abs().max() == 0
    assert squared_distance(other, own, MASK).min() > 0


@pytest.mark.parametrize("anything", [7.0, float("inf"), float("nan")])
def test_what_stands_in_the_padding_does_not_count(anything: float) -> None:
    (student,), (teacher,) = states(0, 1), states(1, 1)
    clean = squared_distance(student, teacher, MASK)
    padded = torch.where(MASK.bool().unsqueeze(-1), student, anything).requires_grad_()
    dirty = squared_distance(padded, teacher, MASK)
    dirty.sum().backward()
    assert torch.equal(dirty.detach(), clean)
    assert padded.grad is not None and padded.grad[MASK == 0].abs().max() == 0


def test_without_padding_the_distance_is_the_plain_mean_of_squares() -> None:
    (student,), (teacher,) = states(0, 1), states(1, 1)
    everything = torch.ones(B, T, dtype=torch.int64)
    ours = squared_distance(student, teacher, everything).sum() / (B * T)
    torch.testing.assert_close(ours, torch.nn.functional.mse_loss(student, teacher))


def test_gradient_of_the_distance_reaches_the_student_only() -> None:
    (student,), (teacher,) = states(0, 1), states(1, 1)
    student.requires_grad_()
    teacher.requires_grad_()
    squared_distance(student, teacher, MASK).sum().backward()
    assert student.grad is not None and teacher.grad is None


def test_layer_maps_mean_what_the_settings_say() -> None:
    assert resolve_layer_map("uniform", 3, 12, "hidden_mse") == {0: 0, 1: 4, 2: 8, 3: 12}
    assert resolve_layer_map("last", 3, 12, "hidden_mse") == {3: 12}
    assert resolve_layer_map({1: 2}, 3, 12, "hidden_mse") == {1: 2}


def test_layer_maps_that_cannot_be_are_refused_with_the_numbers() -> None:
    with pytest.raises(ModelError, match="6 and 4 blocks"):
        resolve_layer_map("uniform", 4, 6, "hidden_mse")
    with pytest.raises(ModelError, match=r"4 → 2.*0\.\.3"):
        resolve_layer_map({1: 2, 4: 2}, 3, 6, "hidden_mse")
    with pytest.raises(ModelError, match="no pairs"):
        resolve_layer_map({}, 3, 6, "hidden_mse")


def test_the_cosine_distance_is_one_minus_the_cosine_of_each_real_token() -> None:
    (student,), (teacher,) = states(0, 1), states(1, 1)
    cosines = torch.nn.functional.cosine_similarity(student, teacher, dim=-1)
    expected = ((1 - cosines) * MASK).sum(dim=1)
    found = cosine_distance(student, teacher, MASK)
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)


def test_the_cosine_distance_asks_for_the_direction_only() -> None:
    (student,), (teacher,) = states(0, 1), states(1, 1)
    assert cosine_distance(teacher * 7, teacher, MASK).abs().max() <= ROUNDING
    for found, expected in (
        (cosine_distance(-teacher, teacher, MASK), 2.0 * MASK.sum(1).double()),
        (cosine_distance(student * 7, teacher, MASK), cosine_distance(student, teacher * 3, MASK)),
    ):
        torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)


def test_the_cosine_distance_is_exactly_zero_at_equality_in_float32_too() -> None:
    state = states(0, 1)[0].float()
    assert cosine_distance(state, state, MASK).abs().max() == 0


@pytest.mark.parametrize("anything", [7.0, float("inf"), float("nan"), 0.0])
def test_the_cosine_distance_is_blind_to_the_padding_and_gives_the_teacher_no_gradient(
    anything: float,
) -> None:
    (student,), (teacher,) = states(0, 1), states(1, 1)
    clean = cosine_distance(student, teacher, MASK)
    padded = torch.where(MASK.bool().unsqueeze(-1), student, anything).requires_grad_()
    teacher.requires_grad_()
    dirty = cosine_distance(padded, teacher, MASK)
    dirty.sum().backward()
    assert torch.equal(dirty.detach(), clean)
    assert padded.grad is not None and padded.grad[MASK == 0].abs().max() == 0
    assert padded.grad[MASK == 1].abs().min() > 0 and teacher.grad is None
