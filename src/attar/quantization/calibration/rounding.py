"""A quantizer for passes that only look at outputs: the same numbers in less time.

torch's fake-quantize also writes the mask of a gradient: 9.5 ms for 1.5 million values on one core,
against 2.7 ms for four elementwise steps on one fresh tensor:

    round(x · (1/s)) clamped to [quant_min − z, quant_max − z], times s

The zero point z is an integer, so that it may be added to the bounds instead of to every value, bit
for bit. An infinite value goes to the end of the grid on its own side, where torch's kernel sends
both to the lower one; NaN stays NaN. Left out: rounding in place, since a site's input may be read
again by a shortcut.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attar.models.simulated.qparams import SiteQParams


class Rounding(nn.Module):
    """`Quantizer` of the same grid, without a gradient."""

    def __init__(self, grid: SiteQParams) -> None:
        super().__init__()
        self.scale = grid.scale
        # in float32, as torch's kernels take it: ties must fall to the same side
        self.inverse = float(torch.tensor(grid.scale, dtype=torch.float32).reciprocal())
        self.low = float(grid.quant_min - grid.zero_point)
        self.high = float(grid.quant_max - grid.zero_point)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.inverse).round_().clamp_(self.low, self.high).mul_(self.scale)
