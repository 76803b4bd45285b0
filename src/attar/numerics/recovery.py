"""Crossing of two loss curves, and the share of a gap that a method recovers.

    d(C) = L_A(C) − L_B(C)          B is ahead where d > 0

Curves are interpolated linearly in log C over their common range. The crossing is the last change
of sign. Its interval is from resamples of both curves. In a resample, the same method may lead from
the first budget on (it has crossed before), or the other one may lead at the end (it has not
crossed yet), so an end of the interval can be outside the measured range (None).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attar.numerics.statistics import LEVEL, Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Crossing:
    """Comparison of two curves."""

    leads: bool
    """Whether B is ahead at the largest common budget."""
    compute: float | None
    """Budget from which the final leader stays ahead; None if it was always ahead."""
    low: float | None
    high: float | None
    """Ends of the 95 % interval; None: before the first budget, or after the last."""
    share: float
    """Share of resamples in which the same method is ahead at the end."""


def interpolated(compute: ArrayLike, losses: ArrayLike, at: ArrayLike) -> Floats:
    """Interpolate losses linearly in log compute.

    Example:
        >>> interpolated([1, 100], [3.0, 1.0], [10]).tolist()
        [2.0]
    """
    return np.interp(np.log(at), np.log(compute), np.asarray(losses, dtype=np.float64))


def seed_weights(seeds: int, resamples: int, seed: int) -> Floats:
    """Weights of seeds in a mean: the first row is equal weights, the others are resamples with
    replacement."""
    equal = np.full(seeds, 1 / seeds)
    drawn = np.random.default_rng(seed).multinomial(seeds, equal, resamples) / seeds
    return np.concatenate([equal[None], drawn])


def crossing(compute: Sequence[float] | Floats, ahead: Floats) -> Crossing:
    """Find the last change of the lead.

    Args:
        compute: common budgets, in ascending order.
        ahead: L_A − L_B at these budgets; the first row as measured, the others are resamples.

    Example:
        >>> found = crossing([1, 10, 100], np.array([[-1.0, -1.0, 1.0], [-2.0, 1.0, 1.0]]))
        >>> found.leads, round(found.compute, 2), found.share
        (True, 31.62, 1.0)
    """
    logs = np.log(np.asarray(compute, dtype=np.float64))
    leads = bool(ahead[0, -1] > 0)
    signed = ahead if leads else -ahead
    places = np.array([_last_change(logs, row) for row in signed])
    low, high = np.quantile(places[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Crossing(
        leads=leads,
        compute=_finite(places[0]),
        low=_finite(low),
        high=_finite(high),
        share=float((places[1:] < np.inf).mean()),
    )


def _last_change(logs: Floats, row: Floats) -> float:
    """Where a row becomes positive for the last time; −inf: always, inf: not at the end."""
    behind = np.flatnonzero(row <= 0)
    if not len(behind):
        return -np.inf
    last = int(behind[-1])
    if last == len(row) - 1:
        return np.inf
    share = -row[last] / (row[last + 1] - row[last])
    return float(np.exp(logs[last] + share * (logs[last + 1] - logs[last])))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def recovered(baseline: Floats, method: Floats, teacher: float) -> Interval:
    """Share of the gap between a baseline and its teacher that a method closes.

    Args:
        baseline, method: final losses; the first as measured, the others are resamples.

    Example:
        >>> recovered(np.array([3.0, 3.0]), np.array([2.5, 2.5]), 2.0).value
        0.5
    """
    shares = (baseline - method) / (baseline - teacher)
    low, high = np.quantile(shares[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(shares[0]), float(low), float(high), len(shares) - 1)
