"""`gamma_cosine`: what a norm's output gains when γ is taken out before it is quantized.

    y = γ ⊙ x̂ + β = γ ⊙ X',   X' = y / γ          gain = cos(X', q(X')) − cos(y, q(y))

`restored` says what is left of it after the norm, where γ is multiplied on again:
cos(y, γ ⊙ q(X')). A channel whose γ is nearly 0 has no X' and keeps the factor 1. Nothing is
folded: y is observed, and divided. The largest |y_j| and |X'_j| over the tokens, dimension by
dimension, show why: where X' is milder, the few dimensions that stand out of y do not stand out of
it.
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
from attar.analysis.study import Finding
from attar.analysis.subject import open_subject
from attar.numerics.affine import QParams, choose_qparams, fake_quantize
from attar.numerics.agreement import CosineSum
from attar.numerics.magnitudes import Peaks
from attar.quantization.calibration.calibrate import Watcher
from attar.quantization.transforms.gamma import usable_gamma
from attar.step import StepContext

MOST_DIMENSIONS = 32
"""Dimensions of a norm that are written down, of hundreds: outliers are fewer."""


@dataclass
class _Range:
    """Mean over batches of the batch's ends, as `minmax` takes it."""

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
    """One norm's y and X', each with a grid of its own; ranges and the largest values in the first
    pass, cosines in the second.
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
        """What compares tensors on the grids of the ranges that were learned."""
        grid_y, grid_x = self.of_y.grid(bits), self.of_x.grid(bits)

        def compare(y: Tensor) -> None:
            x = y / self.gamma
            rounded_x = fake_quantize(x, grid_x)
            self.y.add(y, fake_quantize(y, grid_y))
            self.x.add(x, rounded_x)
            self.restored.add(y, self.gamma * rounded_x)

        return compare


def gamma_cosine(config: GammaCosineStep, context: StepContext) -> Finding:
    """Cosine of every norm's output before and after γ is taken out."""
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
    """Over all dimensions, and of each of those where |y| is largest. A dimension has one γ, so its
    largest |X'| is its largest |y| / |γ|.
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
