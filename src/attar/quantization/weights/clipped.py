"""`clipped`: round to nearest, with the range of each row that minimizes its squared error.

The default scale covers the row's largest value. Narrower ranges are tried, and for each row the
one with the least squared error is kept; values outside are clipped.

    scale_o = argmin_s Σ_i h_i (W_oi − s·clamp(round(W_oi/s)))²,   s = r·max_i|W_oi|/quant_max

`importance` h_i is the weight of errors at input i: 1, or the mean square of that input on the
calibration texts; then the sum is the error of the layer's output, for uncorrelated inputs. Left
out: ranges wider than the values.
Shape letters: `O` rows, `I` inputs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attar.numerics.affine import QParams, fake_quantize, quantize

RATIOS = tuple(1 - 0.025 * k for k in range(25))
"""Fractions of the full range to try. At 2 bits, the best range for normal values is half."""


def clipped_scale(weight: Tensor, grid: QParams, importance: Tensor | None = None) -> Tensor:
    """The scale of minimum error for every row.

    Args:
        weight: (O, I).
        grid: covers the largest value of each row.
        importance: (I,), non-negative; None: equal weights.
    Returns: float32 (O,), at most the scales of `grid`.
    """
    best_scale, best_error = grid.scale.clone(), torch.full_like(grid.scale, torch.inf)
    for ratio in RATIOS:
        tried = replace(grid, scale=grid.scale * ratio)
        error = (weight - fake_quantize(weight, tried, axis=0)).square()
        lost = error.sum(1) if importance is None else error @ importance
        better = lost < best_error
        best_error = torch.where(better, lost, best_error)
        best_scale = torch.where(better, tried.scale, best_scale)
    return best_scale


def clipped(name: str, weight: Tensor, grid: QParams) -> tuple[Tensor, Tensor]:
    """Round every value to the nearest point of its row's best clipped grid."""
    scale = clipped_scale(weight, grid)
    chosen = replace(grid, scale=scale)
    return quantize(weight, chosen, axis=0), scale
