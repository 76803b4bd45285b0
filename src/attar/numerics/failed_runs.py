"""Runs of one setting with other seeds: which of them failed, by their loss curves. No torch.

Small models sometimes fall off the path early and never come back. Such a run says nothing of the
setting, so it is named, and what is reported beside mean and standard deviation is the maximum.

The rule, for n ≥ 3 runs whose loss was logged at the same places:

    d_i(t) = loss_i(t) − median over runs of loss(t)
    e_i    = median of d_i over the last quarter of the places     excess at the end
    s      = 1.4826 · median |e_i − median e|                      spread of the excesses, robust
    fall   = median loss at the first place − median loss at the last one

    run i failed   if its loss at the end is not finite, or e_i > max(6 s, 0.05 · fall)

Only a loss *above* the others counts: a run that is better than the rest is luck. A spike that
heals is not a failure, since only the end counts. The floor of 5 % of the fall keeps runs that are
all alike from failing by a hair. Where half of the runs or more would fail there is no common path
to have left, and none is named.

Source: the phenomenon is figure 4.1 of UCB/EECS-2023-141, which names no rule; this one is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

FEWEST = 3
"""Runs; of two that differ, either may be the one that failed."""
END_SHARE = 0.25
SPREADS = 6.0
"""A normal spread is beyond it once in 500 million."""
LEAST_SHARE = 0.05
"""Of the fall of the median loss."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations."""


def failed_runs(curves: Mapping[str, Sequence[float | None]]) -> tuple[str, ...]:
    """Names of the runs that failed.

    Args:
        curves: run → its losses at the same places; None, NaN or infinity: not a number there. A
            shorter curve ended early, and is compared where it is.

    Example:
        >>> good = {f"seed={i}": [4.0, 3.0 + i / 100, 2.0 + i / 100] for i in range(4)}
        >>> failed_runs({**good, "seed=4": [4.0, 3.9, 3.8]})
        ('seed=4',)
    """
    length = min((len(curve) for curve in curves.values()), default=0)
    if len(curves) < FEWEST or not length:
        return ()
    first_of_end = length - max(1, round(length * END_SHARE))
    ends = {name: _finite(curve[first_of_end:length]) for name, curve in curves.items()}
    finite = {name: end for name, end in ends.items() if end is not None}
    broken = [name for name, end in ends.items() if end is None]
    excess: dict[str, float] = {}
    if len(finite) >= FEWEST:
        middle = [median(losses) for losses in zip(*finite.values(), strict=True)]
        for name, end in finite.items():
            excess[name] = median(a - b for a, b in zip(end, middle, strict=True))
        centre = median(excess.values())
        spread = NORMAL * median(abs(value - centre) for value in excess.values())
        starts = [s for s in (_finite(curves[name][:1]) for name in finite) if s is not None]
        fall = median(s[0] for s in starts) - middle[-1] if starts else 0.0
        limit = max(SPREADS * spread, LEAST_SHARE * fall)
        broken += [name for name, value in excess.items() if value > max(limit, 0.0)]
    if 2 * len(broken) >= len(curves):
        return ()
    return tuple(name for name in curves if name in broken)


def _finite(losses: Sequence[float | None]) -> list[float] | None:
    """The losses, or None where one is not a number."""
    found = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    return found if len(found) == len(losses) else None
