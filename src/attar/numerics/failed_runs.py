"""Detects failed runs among runs that differ only in their seed, by their loss curves. No torch.

Training of small models sometimes diverges early and never recovers. Such a run is not
representative of the setting, so it is reported by name, and the maximum is reported in addition to
mean and standard deviation.

The rule, for n ≥ 3 runs with losses at the same steps:

    d_i(t) = loss_i(t) − median over runs of loss(t)
    e_i    = median of d_i over the last quarter of the places     excess at the end
    s      = 1.4826 · median |e_i − median e|                      spread of the excesses, robust
    fall   = median loss at the first place − median loss at the last one

    run i failed   if its loss at the end is not finite, or e_i > max(6 s, 0.05 · fall)

Only losses *above* the others count; a better run is not a failure. A loss spike that recovers is
not a failure, because only the end counts. The minimum of 5 % of the fall prevents failures among
nearly identical runs. If half of the runs or more would fail, there is no common curve to compare
with, and none is reported.

Source: the phenomenon is shown in figure 4.1 of UCB/EECS-2023-141; the rule is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

FEWEST = 3
"""Minimum number of runs; with two, either could be the one that failed."""
END_SHARE = 0.25
SPREADS = 6.0
"""Threshold in standard deviations, which a normal variable exceeds once in 500 million."""
LEAST_SHARE = 0.05
"""Minimum excess, as a share of the fall of the median loss."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations."""


def failed_runs(curves: Mapping[str, Sequence[float | None]]) -> tuple[str, ...]:
    """Names of the runs that failed.

    Args:
        curves: run → losses at the same steps; None, NaN or infinity: not finite. A shorter curve
            ended early and is compared as far as it goes.

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
    """The losses, or None if one is not finite."""
    found = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    return found if len(found) == len(losses) else None
