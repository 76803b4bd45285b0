"""`gamma_cosine`: how much quantizing a norm's output improves when γ is migrated.

    y = γ ⊙ x̂ + β = γ ⊙ X',   X' = y / γ          gain = cos(X', q(X')) − cos(y, q(y))

`restored` is the cosine after multiplying by γ again: cos(y, γ ⊙ q(X')). For channels with γ close
to 0 the factor is 1. Nothing is folded: y is observed, and divided by γ. The maxima of |y_j| and
|X'_j| over the tokens, per dimension, show the reason: where migration helps, the outlier
dimensions of y are not outliers of X'.
Source: Outlier Suppression (Wei et al. 2022), equations 5 and 6, table 12, figures 11 and 12.
Shape letters: `N` real tokens, `D` hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from attar.analysis.config import GammaCosineStep
from attar.analysis.outlying.hidden import PlacedNorm, norms_of
from attar.analysis.subject import Finding, open_subject
from attar.numerics.affine import QParams, choose_qparams, fake_quantize
from attar.numerics.agreement import CosineSum
from attar.numerics.magnitudes import Peaks
from attar.quantization.calibration.calibrate import Watcher
from attar.quantization.transforms.gamma import usable_gamma
from attar.step import StepContext

MOST_DIMENSIONS = 32
"""Maximum number of dimensions per norm in the table; there are fewer outliers."""


@dataclass
class _Range:
    """Mean over batches of the batch minimum and maximum, as in `minmax`."""

    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)

    def see(self, values: Tensor) -> None:
        low, high = values.aminmax()
        self.lows.append(float(low))
        self.highs.append(float(high))

    def grid(self, bits: int) -> QParams:
        low, high = torch.tensor(fmean(self.lows)), torch.tensor(fmean(self.highs))
        return choose_qparams(low, high, bits, symmetric=False)


class _Comparison:
    """Compares y and X' of one norm, each with its own grid: ranges and maxima in the first pass,
    cosines in the second.
    """

    def __init__(self, norm: PlacedNorm) -> None:
        self.gamma = usable_gamma(norm.gamma).float()
        self.of_y, self.of_x = _Range(), _Range()
        self.largest = Peaks()
        self.y, self.x, self.restored = CosineSum(), CosineSum(), CosineSum()

    def learn(self, y: Tensor) -> None:
        self.of_y.see(y)
        self.of_x.see(y / self.gamma)
        self.largest.see(y)

    def comparing(self, bits: int) -> Watcher:
        """A watcher that compares tensors with their quantized values."""
        grid_y, grid_x = self.of_y.grid(bits), self.of_x.grid(bits)

        def compare(y: Tensor) -> None:
            x = y / self.gamma
            rounded_x = fake_quantize(x, grid_x)
            self.y.add(y, fake_quantize(y, grid_y))
            self.x.add(x, rounded_x)
            self.restored.add(y, self.gamma * rounded_x)

        return compare


def gamma_cosine(config: GammaCosineStep, context: StepContext) -> Finding:
    """Cosine of every norm's output with its quantized values, with and without γ."""
    subject = open_subject(config, context)
    norms = norms_of(subject.model)
    comparisons = {norm.site: _Comparison(norm) for norm in norms}
    subject.watch({site: c.learn for site, c in comparisons.items()}, "ranges of norms")
    subject.watch(
        {site: c.comparing(config.bits) for site, c in comparisons.items()}, "cosine of norms"
    )
    rows = [_row(norm, comparisons[norm.site]) for norm in norms]
    gains: dict[str, list[float]] = {}
    for row in rows:
        gains.setdefault(row["kind"], []).append(row["gain"])
    metrics = {
        "norms": {row["norm"]: row["gain"] for row in rows},
        "mean_gain": {kind: fmean(found) for kind, found in gains.items()},
    }
    return Finding({"bits": config.bits, **subject.reading}, {"rows": rows}, metrics)


def _row(norm: PlacedNorm, found: _Comparison) -> dict[str, Any]:
    before, after = found.y.cosine, found.x.cosine
    return {
        **norm.place,
        "cosine": before,
        "migrated": after,
        "gain": after - before,
        "restored": found.restored.cosine,
        "num_tiny_gamma": int((usable_gamma(norm.gamma) != norm.gamma).sum()),
        "largest_gamma": float(norm.gamma.abs().max()),
        "median_gamma": float(norm.gamma.abs().median()),
        **_largest_values(norm, found),
    }


def _largest_values(norm: PlacedNorm, found: _Comparison) -> dict[str, Any]:
    """Maxima over all dimensions, and of each dimension with the largest |y|. Since a dimension has
    one γ, its maximum |X'| is its maximum |y| / |γ|.
    """
    y = found.largest.values
    x = y / found.gamma.abs()
    order = y.argsort(descending=True, stable=True)[:MOST_DIMENSIONS].tolist()
    return {
        "largest_y": float(y.max()),
        "median_y": float(y.median()),
        "largest_x": float(x.max()),
        "median_x": float(x.median()),
        "dimensions": [
            {"dimension": d, "gamma": float(norm.gamma[d]), "y": float(y[d]), "x": float(x[d])}
            for d in order
        ],
    }
