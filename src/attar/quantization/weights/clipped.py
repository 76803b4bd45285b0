"""`clipped`: a narrower range for each row when that loses less than it gains.

One scale per row reaches to the row's largest value. Narrower ranges are tried, and row by row the
one with the least squared error is kept; what lies outside goes to the end of the grid.

    scale_o = argmin_s Σ_i h_i (W_oi − s·clamp(round(W_oi/s)))²,   s = r·max_i|W_oi|/quant_max

`importance` h_i says how much an error at input i weighs: 1, or the mean square of that input on
the calibration texts, for then the sum is the error of the layer's output where inputs are
independent. Left out: ranges wider than the values.
Shape letters: `O` rows, `I` inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attar.numerics.affine import QParams, fake_quantize, quantize

RATIOS = tuple(1 - 0.025 * k for k in range(25))
"""Shares of the full range that are tried: at 2 bits the best range of normal values is half."""


def clipped_scale(weight: Tensor, grid: QParams, importance: Tensor | None = None) -> Tensor:
    """The scale of every row that loses least.

    Args:
        weight: (O, I).
        grid: reaches to the largest value of each row.
        importance: (I,), not negative; None: every input weighs the same.
    Returns: float32 (O,), never above the grid's own scales.
    """
    best_scale, best_error = grid.scale.clone(), torch.full_like(grid.scale, torch.inf)
    for ratio in RATIOS:
        tried = QParams(grid.scale * ratio, grid.zero_point, grid.quant_min, grid.quant_max)
        error = (weight - fake_quantize(weight, tried, axis=0)).square()
        lost = error.sum(1) if importance is None else error @ importance
        better = lost < best_error
        best_error = torch.where(better, lost, best_error)
        best_scale = torch.where(better, tried.scale, best_scale)
    return best_scale


def clipped(name: str, weight: Tensor, grid: QParams) -> tuple[Tensor, Tensor]:
    """Every value to its nearest point of the best clipped grid of its row."""
    scale = clipped_scale(weight, grid)
    chosen = QParams(scale, grid.zero_point, grid.quant_min, grid.quant_max)
    return quantize(weight, chosen, axis=0), scale
