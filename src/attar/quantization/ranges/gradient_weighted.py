"""Ranges that minimize the gradient-weighted squared error.

`omse` weights all values of a tensor equally, but most outliers hardly affect the outputs, and a
few affect them strongly. So each value's error is weighted by the squared gradient of the outputs
with respect to that value, from one backward pass:

    lost(range) = Σ g² (x − Q(x))²,   E[g²] = Σ_c (∂logit_c/∂x)²,   g = ∂(v·logits)/∂x,  v_c = ±1

This is the diagonal of a Gauss-Newton approximation of the output error. It assumes that errors of
different values are uncorrelated, which holds for rounding but not for clipping, so the result is
only a candidate whose output error is then measured. Sums are kept in bins between the extremes
seen in calibration.
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
"""Fractions of each end of the full range to try."""
ROUNDS = 3
"""Number of alternating searches of the two ends."""


@dataclass(frozen=True)
class OutputGradients:
    """Sensitivity of the outputs to errors of each site's values, in bins."""

    meters: Mapping[Site, _Meter]

    @classmethod
    def of(cls, problem: Problem) -> OutputGradients:
        """Run one forward and backward pass of the float model over the calibration texts."""
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
        """Gradient-weighted squared error of the site's values on the grid of a range."""
        meter = self.meters[site]
        if high <= low:
            return float(meter.mass @ meter.centres**2)
        grid = choose_qparams(torch.tensor(low), torch.tensor(high), bits, symmetric=False)
        scale, zero = float(grid.scale), int(grid.zero_point)
        integers = np.round(meter.centres / scale) + zero
        on_grid = (integers.clip(grid.quant_min, grid.quant_max) - zero) * scale
        return float(meter.mass @ (meter.centres - on_grid) ** 2)

    def best_range(self, site: Site, bits: int) -> tuple[float, float]:
        """The range of minimum error; the two ends are searched in turn."""
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
    """Identity module that sums the squared gradients of a site's values in bins."""

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
