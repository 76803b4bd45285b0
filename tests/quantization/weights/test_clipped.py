"""A clipped row never loses more than the row whose grid reaches its largest value."""

from __future__ import annotations

import pytest
import torch

from attar.numerics.affine import QParams, choose_qparams, dequantize, per_channel_range
from attar.quantization.weights.clipped import clipped, clipped_scale
from attar.quantization.weights.nearest import nearest


def grid_of(weight: torch.Tensor, bits: int) -> QParams:
    return choose_qparams(*per_channel_range(weight), bits, symmetric=True)


def lost(weight: torch.Tensor, grid: QParams, found: tuple[torch.Tensor, torch.Tensor]):
    integers, scale = found
    stored = QParams(scale, grid.zero_point, grid.quant_min, grid.quant_max)
    return (weight - dequantize(integers, stored, axis=0)).square().sum(1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_row_loses_more_than_by_nearest(bits: int) -> None:
    weight = torch.randn(16, 200, generator=torch.Generator().manual_seed(0))
    weight[3, 7] = 20.0
    grid = grid_of(weight, bits)
    ours, theirs = lost(weight, grid, clipped("w", weight, grid)), nearest("w", weight, grid)
    assert bool((ours <= lost(weight, grid, theirs) + 1e-6).all())
    if bits <= 4:
        assert float(ours.sum()) < 0.9 * float(lost(weight, grid, theirs).sum())


def test_an_input_that_is_never_there_does_not_stretch_the_range() -> None:
    weight = torch.full((1, 8), 0.3)
    weight[0, 0], weight[0, 1] = 3.0, 0.9
    grid = grid_of(weight, 4)
    importance = torch.ones(8)
    importance[0] = 0.0
    assert float(clipped_scale(weight, grid, importance)) < 0.75 * float(grid.scale)
    assert float(clipped_scale(weight, grid)) > 0.9 * float(grid.scale)


def test_a_row_of_zeros_keeps_its_scale() -> None:
    weight = torch.zeros(2, 4)
    integers, scale = clipped("w", weight, grid_of(weight, 4))
    assert integers.tolist() == [[0] * 4] * 2
    assert scale.tolist() == [1.0, 1.0]
