"""Where one method's loss curve overtakes another's, and how much of a gap a method closes.

    d(C) = L_A(C) − L_B(C)          B is ahead where d > 0

Curves are joined by straight lines over log C, and looked at where both have been measured. What
counts is the last change of sign: whoever is ahead after it stays ahead. An interval comes from
resamples of both curves. One in which the same method leads from the first budget on has crossed
before it, one in which the other leads at the end has not crossed yet; so an end of the interval
may lie outside what was measured (None).
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
    """How two curves lie to each other."""

    leads: bool
    """B is ahead at the largest common budget."""
    compute: float | None
    """Where the leader at the end went ahead for good; None: it was ahead throughout."""
    low: float | None
    high: float | None
    """95 % interval; None: before the first budget, or not before the last."""
    share: float
    """Of the resamples, in which the same method is ahead at the end."""


def interpolated(compute: ArrayLike, losses: ArrayLike, at: ArrayLike) -> Floats:
    """Losses between measured points, by straight lines over log compute.

    Example:
        >>> interpolated([1, 100], [3.0, 1.0], [10]).tolist()
        [2.0]
    """
    return np.interp(np.log(at), np.log(compute), np.asarray(losses, dtype=np.float64))


def seed_weights(seeds: int, resamples: int, seed: int) -> Floats:
    """Weights of seeds in a mean: equal ones first, then those of resamples with replacement, a row
    each."""
    equal = np.full(seeds, 1 / seeds)
    drawn = np.random.default_rng(seed).multinomial(seeds, equal, resamples) / seeds
    return np.concatenate([equal[None], drawn])


def crossing(compute: Sequence[float] | Floats, ahead: Floats) -> Crossing:
    """The last change of the lead.

    Args:
        compute: common budgets, in ascending order.
        ahead: L_A − L_B at each of them; the first row as measured, the others of resamples.

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
    """Where a row becomes positive for good; −inf: it is throughout, inf: it is not at its end."""
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
        baseline, method: losses at the end; the first as measured, the others of resamples.

    Example:
        >>> recovered(np.array([3.0, 3.0]), np.array([2.5, 2.5]), 2.0).value
        0.5
    """
    shares = (baseline - method) / (baseline - teacher)
    low, high = np.quantile(shares[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(shares[0]), float(low), float(high), len(shares) - 1)
