"""Ranges of the least gradient-weighted squared error.

`omse` treats all values of a tensor alike, but a model hardly reads most outliers and lives from a
few. So each value's error is weighed with the square of what the outputs change when that value
does, from one backward pass:

    lost(range) = Σ g² (x − Q(x))²,   E[g²] = Σ_c (∂logit_c/∂x)²,   g = ∂(v·logits)/∂x,  v_c = ±1

This is the diagonal of a Gauss-Newton expansion of the output error: errors of different values are
taken as unrelated, which rounding is and clipping is not, so the answer is a candidate to be
measured, not a verdict. Sums are kept in bins between the extremes that calibration saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attar.models.structure.ports import inserted
from attar.models.structure.sites import Site
from attar.numerics.affine import choose_qparams
from attar.quantization.calibration.outputs import frozen, real_logits
from attar.quantization.calibration.real_tokens import RealTokens, TokensAt
from attar.quantization.method import Problem
from attar.seeds import generator

NUM_BINS = 2048
SHARES = np.linspace(1.0, 0.02, 50)
"""Shares of each end of the full range that are tried."""
ROUNDS = 3
"""Of alternating between the two ends."""


@dataclass(frozen=True)
class OutputGradients:
    """How much the outputs feel an error at each value of each site."""

    meters: Mapping[Site, _Meter]

    @classmethod
    def of(cls, problem: Problem) -> OutputGradients:
        """One forward and one backward pass of the float model over the calibration texts."""
        calibration, model = problem.calibration, problem.model
        real = RealTokens()
        meters = {
            site: _Meter(real.of(site), seen.low, seen.high)
            for site, seen in calibration.statistics.items()
        }
        signs = generator(problem.context.seed, "signs of outputs")
        with frozen(model), inserted(model, meters), torch.enable_grad():
            for batch in calibration.batches:
                problem.context.stop_if_asked("calibration")
                real.read(batch)
                logits = real_logits(model, batch)
                v = torch.from_numpy(signs.choice([-1.0, 1.0], size=tuple(logits.shape)))
                (logits * v.to(logits.dtype)).sum().backward()
        return cls(meters)

    def lost(self, site: Site, low: float, high: float, bits: int) -> float:
        """Weighted squared error of the site's values on the grid of a range."""
        meter = self.meters[site]
        if high <= low:
            return float(meter.mass @ meter.centres**2)
        grid = choose_qparams(torch.tensor(low), torch.tensor(high), bits, symmetric=False)
        scale, zero = float(grid.scale), int(grid.zero_point)
        integers = np.round(meter.centres / scale) + zero
        on_grid = (integers.clip(grid.quant_min, grid.quant_max) - zero) * scale
        return float(meter.mass @ (meter.centres - on_grid) ** 2)

    def best_range(self, site: Site, bits: int) -> tuple[float, float]:
        """Ends that lose least, found one at a time."""
        meter = self.meters[site]
        lows = [float(min(meter.low, 0.0) * share) for share in SHARES]
        highs = [float(max(meter.high, 0.0) * share) for share in SHARES]
        low, high = lows[0], highs[0]
        for _ in range(ROUNDS):
            lost = [self.lost(site, low, end, bits) for end in highs]
            high = highs[int(np.argmin(lost))]
            lost = [self.lost(site, end, high, bits) for end in lows]
            low = lows[int(np.argmin(lost))]
        return low, high


class _Meter(nn.Module):
    """Hands a site's tensor on, and adds up the squared gradients of its values in bins."""

    def __init__(self, real: TokensAt, low: float, high: float) -> None:
        super().__init__()
        self.real, self.low, self.high = real, low, high
        self.width = max((high - low) / NUM_BINS, float(np.finfo(np.float32).tiny))
        self.centres = low + self.width * (np.arange(NUM_BINS) + 0.5)
        self.mass = np.zeros(NUM_BINS)

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        values = self.real.values_of(x.detach()).flatten()

        def add(gradient: Tensor) -> None:
            weights = self.real.values_of(gradient).flatten().double().square()
            bins = ((values - self.low) / self.width).long().clamp(0, NUM_BINS - 1)
            self.mass += torch.bincount(bins, weights, minlength=NUM_BINS).numpy()

        x.register_hook(add)
        return x
