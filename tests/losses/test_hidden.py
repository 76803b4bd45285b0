"""Laws of the hidden-state loss and its layer maps."""

from __future__ import annotations

import pytest
import torch

from attar.errors import ModelError
from attar.losses.hidden import hidden_mse, require_equal_width, resolve_layer_map

B, T, D = 3, 5, 4
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


def states(seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, T, D, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_hidden_mse_is_zero_when_student_equals_teacher() -> None:
    teacher = states(0, 5)
    layer_map = resolve_layer_map("uniform", 2, 4)
    student = [teacher[0], teacher[2], teacher[4]]
    assert hidden_mse(student, teacher, MASK, layer_map).abs().max() == 0
    assert hidden_mse(states(1, 3), teacher, MASK, layer_map).min() > 0


@pytest.mark.parametrize("anything", [7.0, float("inf"), float("nan")])
def test_what_stands_in_the_padding_does_not_count(anything: float) -> None:
    student, teacher = states(0, 2), states(1, 2)
    clean = hidden_mse(student, teacher, MASK, {0: 0, 1: 1})
    padded = [torch.where(MASK.bool().unsqueeze(-1), state, anything) for state in student]
    for state in padded:
        state.requires_grad_()
    dirty = hidden_mse(padded, teacher, MASK, {0: 0, 1: 1})
    dirty.sum().backward()
    assert torch.equal(dirty.detach(), clean)
    gradient = padded[0].grad
    assert gradient is not None and gradient[MASK == 0].abs().max() == 0


def test_hidden_mse_over_the_tokens_is_the_plain_mean_of_squares_without_padding() -> None:
    student, teacher = states(0, 1), states(1, 1)
    everything = torch.ones(B, T, dtype=torch.int64)
    ours = hidden_mse(student, teacher, everything, {0: 0}).sum() / (B * T)
    torch.testing.assert_close(ours, torch.nn.functional.mse_loss(student[0], teacher[0]))


def test_gradient_of_hidden_mse_reaches_the_student_only() -> None:
    student, teacher = states(0, 1), states(1, 1)
    student[0].requires_grad_()
    teacher[0].requires_grad_()
    hidden_mse(student, teacher, MASK, {0: 0}).sum().backward()
    assert student[0].grad is not None and teacher[0].grad is None


def test_layer_maps_mean_what_the_settings_say() -> None:
    assert resolve_layer_map("uniform", 3, 12) == {0: 0, 1: 4, 2: 8, 3: 12}
    assert resolve_layer_map("last", 3, 12) == {3: 12}
    assert resolve_layer_map({1: 2}, 3, 12) == {1: 2}


def test_layer_maps_that_cannot_be_are_refused_with_the_numbers() -> None:
    with pytest.raises(ModelError, match="6 and 4 blocks"):
        resolve_layer_map("uniform", 4, 6)
    with pytest.raises(ModelError, match=r"4 → 2.*0\.\.3"):
        resolve_layer_map({1: 2, 4: 2}, 3, 6)
    with pytest.raises(ModelError, match="no pairs"):
        resolve_layer_map({}, 3, 6)


def test_other_widths_are_refused_with_the_numbers_and_what_comes_later() -> None:
    with pytest.raises(ModelError, match=r"312.*768.*projection.*later"):
        require_equal_width(312, 768)
