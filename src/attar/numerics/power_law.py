"""Fits a power law with a floor to loss against compute, for extrapolation.

    L(C) = A · C^(−α) + L∞           A ≥ 0, L∞ ≥ 0, α > 0

The objective is the *sum* over points of the Huber loss of the log-residuals log L̂(C) − log L,
which is linear beyond `HUBER_DELTA`, so that a single outlier does not bend the curve. The three
constants are strongly correlated (a higher floor goes with a steeper α), which makes gradient
descent from a random start unreliable. For a fixed α, however, the law is linear in A and L∞, which
are solved by a few reweighted least-squares steps. Only α is searched, on a grid that is refined
around its best point. C is first divided by the largest C, so units cancel.

Intervals are from a circular moving-block bootstrap: evaluations of a run are correlated, so blocks
of neighbouring points are drawn, and a block that reaches the end continues at the start, so that
all points are drawn equally often. With several seeds, runs are drawn first. The interval shows the
effect of the noise of these points; it does not show whether the law holds beyond them.

Source: Hoffmann et al. 2022, arXiv 2203.15556, appendix D (the objective and its delta); Gu et al.
2024, arXiv 2410.17215, appendix (constants and read-offs). *Differs*: they start L-BFGS from a grid
of points and fit over model sizes too; here α alone is searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attar.errors import DataError
from attar.numerics.statistics import LEVEL, Interval

Floats = NDArray[np.float64]
CONSTANTS = 3
HUBER_DELTA = 1e-3
"""In log-loss: 0.1 % of the loss."""
LEAST_FLOOR = 0.01
"""Minimum L∞, as a share of the last loss, that counts as different from 0."""
ALPHAS = (0.02, 3.0)
"""Search range of α. Published exponents are between 0.05 and 0.6."""
GRID = 25
ZOOM = 9
"""Points of a refined grid, which covers two steps of the previous one and so is 4 × finer."""
ROUNDS, RESAMPLED_ROUNDS = 14, 3
"""Numbers of refinements: α is accurate to 1e-9 for the data, and to 0.4 % for a resample."""
REWEIGHTED = 15
"""Number of least-squares steps for A and L∞ at a fixed α."""
CHUNK = 64
"""Number of resamples fitted at a time."""


@dataclass(frozen=True)
class PowerLaw:
    scale: float
    """A, in units of compute to the power α."""
    alpha: float
    floor: float
    """L∞."""

    def __call__(self, compute: float) -> float:
        """The loss at a compute budget, in the units of the fit.

        Example:
            >>> round(PowerLaw(2.19e7, 0.41, 3.30)(6 * 2.1e8 * 1e12), 2)
            3.35
        """
        return self.scale * compute**-self.alpha + self.floor


@dataclass(frozen=True)
class Fit:
    """A fitted law, with the laws fitted to its resamples."""

    law: PowerLaw
    resampled: tuple[PowerLaw, ...]
    points: int
    rms: float
    """Root mean square of the log-residuals."""
    last_loss: float
    """Loss of the law at the largest compute of the points."""
    at_bound: bool
    """Whether α is at an end of the search range, so that the points do not follow a power law."""

    def at(self, compute: float) -> Interval:
        """The loss at a compute budget, with its interval."""
        return self._interval(self.law(compute), [law(compute) for law in self.resampled])

    @property
    def alpha(self) -> Interval:
        return self._interval(self.law.alpha, [law.alpha for law in self.resampled])

    @property
    def scale(self) -> Interval:
        return self._interval(self.law.scale, [law.scale for law in self.resampled])

    @property
    def floor(self) -> Interval:
        return self._interval(self.law.floor, [law.floor for law in self.resampled])

    @property
    def is_identified(self) -> bool:
        """Whether the points determine L∞; otherwise, smaller floors fit equally well."""
        return not self.at_bound and self.floor.low > LEAST_FLOOR * self.last_loss

    def _interval(self, value: float, resampled: Sequence[float]) -> Interval:
        low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(value, float(low), float(high), self.points)


def fit_power_law(runs: Sequence[tuple[ArrayLike, ArrayLike]], *, bootstrap: int, seed: int) -> Fit:
    """Fit one law to the points of one run, or of several runs that differ only in their seed.

    Args:
        runs: compute (any unit) and losses of each run, in order.
        bootstrap: number of resamples.

    Raises:
        DataError: too few points, values that are not positive and finite, or losses that do not
            decrease.
    """
    compute = [np.asarray(each, dtype=np.float64) for each, _ in runs]
    losses = [np.asarray(each, dtype=np.float64) for _, each in runs]
    _check(compute, losses)
    x, y = np.concatenate(compute), np.log(np.concatenate(losses))
    largest = float(x.max())
    log_x = np.log(x / largest)
    constants = _searched(log_x, y, np.ones((1, len(x))), ROUNDS)
    a, alpha, floor = constants[0].tolist()
    if not a > 0:
        raise DataError(
            f"the losses do not fall with more compute (a constant {floor:.4g} fits best), so "
            "there is no power law to extrapolate; train for longer, or raise from_share if the "
            "first points are still warm-up"
        )
    weights = _resampled([len(each) for each in compute], bootstrap, seed)
    parts = (weights[at : at + CHUNK] for at in range(0, bootstrap, CHUNK))
    found = np.concatenate([_searched(log_x, y, part, RESAMPLED_ROUNDS) for part in parts])
    law = _law(a, alpha, floor, largest)
    residuals: Floats = np.log(a * np.exp(-alpha * log_x) + floor) - y
    return Fit(
        law=law,
        resampled=tuple(_law(a, alpha, floor, largest) for a, alpha, floor in found.tolist()),
        points=len(x),
        rms=float(np.sqrt(np.mean(residuals**2))),
        last_loss=a + floor,
        at_bound=not ALPHAS[0] * 1.001 < alpha < ALPHAS[1] / 1.001,
    )


def _check(compute: Sequence[Floats], losses: Sequence[Floats]) -> None:
    values = np.concatenate([*compute, *losses])
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise DataError("compute and losses must be positive and finite")
    budgets = len(np.unique(np.concatenate(compute)))
    if budgets <= CONSTANTS:
        raise DataError(
            f"a law with {CONSTANTS} constants needs losses at more than {CONSTANTS} budgets, got "
            f"{budgets}"
        )


def _law(a: float, alpha: float, floor: float, largest: float) -> PowerLaw:
    """The law in the original units of compute."""
    return PowerLaw(a * largest**alpha, alpha, floor)


def _resampled(lengths: Sequence[int], bootstrap: int, seed: int) -> Floats:
    """Number of times that each point is drawn, (R, N)."""
    generator = np.random.default_rng(seed)
    counts: Floats = np.zeros((bootstrap, sum(lengths)))
    for row in counts:
        for _ in lengths:
            run = int(generator.integers(len(lengths)))
            length, begin = lengths[run], sum(lengths[:run])
            block = math.ceil(length ** (1 / 3))
            begins = [int(generator.integers(length)) for _ in range(-(-length // block))]
            drawn = [start + place for start in begins for place in range(block)][:length]
            for point in drawn:
                row[begin + point % length] += 1.0
    return counts


def _searched(log_x: Floats, y: Floats, weights: Floats, rounds: int) -> Floats:
    """The best constants (a, α, L∞), (R, 3).

    Args:
        log_x: log of compute, (N,), with maximum 0.
        y: log-losses, (N,).
        weights: weights of the points, (R, N).
        rounds: number of grid refinements.
    """
    low, high = math.log(ALPHAS[0]), math.log(ALPHAS[1])
    whole: Floats = np.linspace(low, high, GRID)
    log_alphas: Floats = np.tile(whole, (len(weights), 1))
    rows = np.arange(len(weights))
    for _ in range(rounds):
        _, _, objective = _solved(np.exp(log_alphas), log_x, y, weights)
        best, step = log_alphas[rows, objective.argmin(axis=1)], log_alphas[:, 1] - log_alphas[:, 0]
        begin, end = np.maximum(best - step, low), np.minimum(best + step, high)
        log_alphas = np.linspace(begin, end, ZOOM, axis=1)
    a, floor, objective = _solved(np.exp(log_alphas), log_x, y, weights)
    best = objective.argmin(axis=1)
    return np.stack([a[rows, best], np.exp(log_alphas[rows, best]), floor[rows, best]], axis=1)


def _solved(
    alphas: Floats, log_x: Floats, y: Floats, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """A, L∞ and the objective for each α; each (R, G).

    Gauss-Newton steps on the log-residuals; Huber's loss becomes a weight min(1, δ/|r|) on their
    squares.
    """
    x = np.exp(-alphas[..., None] * log_x)
    counts = weights[:, None, :]
    predicted: Floats = np.broadcast_to(np.exp(y), x.shape)
    robust: Floats = np.ones(x.shape)
    best: Floats = np.full(alphas.shape, np.inf)
    best_a: Floats = np.zeros(alphas.shape)
    best_floor: Floats = np.zeros(alphas.shape)
    for _ in range(REWEIGHTED):
        target = y - np.log(predicted) + 1.0
        a, floor = _least_squares(x, predicted, target, counts * robust)
        predicted = a[..., None] * x + floor[..., None]
        size = np.abs(np.log(predicted) - y)
        loss = np.where(size <= HUBER_DELTA, size**2 / 2, HUBER_DELTA * (size - HUBER_DELTA / 2))
        objective = (counts * loss).sum(axis=-1)
        better = objective < best
        best = np.where(better, objective, best)
        best_a, best_floor = np.where(better, a, best_a), np.where(better, floor, best_floor)
        robust = HUBER_DELTA / np.maximum(size, HUBER_DELTA)
    return best_a, best_floor, best


def _least_squares(
    x: Floats, predicted: Floats, target: Floats, weights: Floats
) -> tuple[Floats, Floats]:
    """a, e ≥ 0 that minimize Σ w · ((a·x + e) / predicted − target)²; each (R, G)."""
    scaled = weights / predicted
    per_square = scaled / predicted
    xx, x1, one = (per_square * x * x).sum(-1), (per_square * x).sum(-1), per_square.sum(-1)
    bx, b1 = (scaled * x * target).sum(-1), (scaled * target).sum(-1)
    determinant = xx * one - x1 * x1
    is_flat = determinant <= 1e-14 * xx * one  # all draws have the same budget
    safe = np.where(is_flat, 1.0, determinant)
    a, floor = (one * bx - x1 * b1) / safe, (xx * b1 - x1 * bx) / safe
    no_slope, no_floor = is_flat | (a < 0), ~is_flat & (floor < 0)
    no_floor_a: Floats = bx / xx
    a = np.where(no_slope, 0.0, np.where(no_floor, no_floor_a, a))
    floor = np.where(no_slope, b1 / one, np.where(no_floor, 0.0, floor))
    return a, floor
