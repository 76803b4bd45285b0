"""Compares the damage of an intervention with that of random interventions of the same size.

A ratio of damages divides two noisy differences, and the denominator is near zero if random
dimensions do not matter, as expected; the interval then has no finite upper end. So rows and random
choices are resampled together, and a resample in which the null does no damage gives an infinite
ratio.

    damage(x) = full − disabled(x)         (negated if lower is better)
    ratio_r   = damage_r(outlier) / mean_s damage_r(null_s)
                                            rows and choices s drawn with replacement
    ratio_r   = +∞ if the null's mean damage is ≤ 0 and the outliers' is > 0, −∞ if both are ≤ 0

`excess`, the difference of the two damages, always has a finite interval. The p-value is that of a
permutation test that includes the intervention itself: (1 + choices with at least as much damage) /
(1 + choices). The smallest possible p is 1 / (S + 1).

Left out: Fieller's interval, which assumes that the damages are normal.
Letters: R resamples · S random choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attar.numerics.metric_names import LOWER_IS_BETTER
from attar.numerics.statistics import LEVEL, Bootstrapped, Difference, Floats, percentiles


@dataclass(frozen=True)
class Ratio:
    """The ratio of two damages, with its interval."""

    value: float | None
    """None if the null does no damage."""
    low: float
    """−∞: the outliers may do no damage either; +∞: the null never does any."""
    high: float
    """+∞: the null's damage may be zero."""


@dataclass(frozen=True)
class Damage:
    """Damage of an intervention and of random interventions."""

    outlier: Difference
    null: Difference
    """Mean damage of the random choices, with an interval over rows and choices."""
    excess: Difference
    """outlier − null."""
    ratio: Ratio
    as_bad: int
    """Number of random choices with at least as much damage."""
    choices: int

    @property
    def p_value(self) -> float:
        return (1 + self.as_bad) / (1 + self.choices)


def damages(
    full: Bootstrapped, outlier: Bootstrapped, nulls: Sequence[Bootstrapped], *, seed: int
) -> Damage:
    """Compare an intervention with random ones on the same rows.

    Args:
        full: the metric with nothing disabled.
        seed: seed for resampling the random choices.
    Raises:
        ValueError: the metrics were not bootstrapped together, or there are no random choices.
    """
    if not nulls or any(one.draw != full.draw for one in (outlier, *nulls)):
        raise ValueError("a damage needs at least one random choice, all on the same draws of rows")
    rows = full.draw[1]
    harm, harm_R = _harm(full, outlier)
    each = [_harm(full, null) for null in nulls]
    null = float(np.mean([value for value, _ in each]))
    null_R = _mean_of_drawn(np.stack([resampled for _, resampled in each], axis=1), seed)
    return Damage(
        outlier=Difference(harm, *percentiles(harm_R), rows),
        null=Difference(null, *percentiles(null_R), rows),
        excess=Difference(harm - null, *percentiles(harm_R - null_R), rows),
        ratio=_ratio(harm, null, harm_R, null_R),
        as_bad=sum(value >= harm for value, _ in each),
        choices=len(nulls),
    )


def damage_of(full: Bootstrapped, disabled: Bootstrapped) -> Difference:
    """Damage of one intervention on the same rows; positive if it is harmful."""
    value, resampled = _harm(full, disabled)
    return Difference(value, *percentiles(resampled), full.draw[1])


def standard_error(one: Bootstrapped) -> float:
    """Bootstrap standard error of a metric."""
    return float(one.resampled.std(ddof=1))


def _harm(full: Bootstrapped, disabled: Bootstrapped) -> tuple[float, Floats]:
    sign = -1.0 if full.draw[0] in LOWER_IS_BETTER else 1.0
    lost = sign * (full.value - disabled.value)
    return lost, sign * (full.resampled - disabled.resampled)


def _mean_of_drawn(null_RS: Floats, seed: int) -> Floats:
    """Mean over resampled choices, drawn separately in every resample of the rows, (R,)."""
    resamples, choices = null_RS.shape
    drawn = np.random.default_rng(seed).integers(0, choices, size=(resamples, choices))
    return np.take_along_axis(null_RS, drawn, axis=1).mean(axis=1)


def _ratio(harm: float, null: float, harm_R: Floats, null_R: Floats) -> Ratio:
    unbounded = np.where(harm_R > 0, np.inf, -np.inf)
    ratios = np.divide(harm_R, null_R, out=unbounded, where=null_R > 0)
    # no interpolation, which is undefined between infinities
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return Ratio(harm / null if null > 0 else None, float(low), float(high))
