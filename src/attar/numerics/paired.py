"""Paired comparison of two methods over seeds.

Both methods use the same seeds (the same order of texts, the same initial weights), and differences
are taken *within* a seed, so that effects of the seed on both cancel.

    d_s = score_s(A) − score_s(B)     mean d ± t(95 %, n − 1) · sd(d) / √n

The interval assumes that the d_s are approximately normal. In addition, there is a sign-flip test,
which only assumes symmetry: under the null hypothesis each d_s is equally likely to have either
sign, so p is the share of all 2ⁿ sign assignments whose mean is at least as far from 0. The
smallest possible p is 2 / 2ⁿ: 0.25 with three seeds; at least six seeds are needed for p < 0.05.

With one or two pairs no conclusion is drawn: one has no spread, and the interval of two is 12.7
standard errors wide. If the interval contains 0, the difference is not significant.

Left out: corrections for multiple comparisons; and Wilcoxon's test, which ignores the sizes of the
differences and has the same smallest p. `scipy.stats` is the reference in the tests; at run time it
is an optional dependency.

Sources: Student, Biometrika 6 (1908); Fisher, The Design of Experiments (1935), section 21, for the
signs; Abramowitz & Stegun (1964), 26.7.3 and 26.7.4, for the finite sums of Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from attar.numerics.statistics import LEVEL, Floats

FEWEST = 3
"""Minimum number of pairs for a conclusion."""
EXACT_UP_TO = 16
"""Maximum number of pairs for an exact test with all (65,536) sign assignments; for more pairs, the
same number is sampled."""
BISECTIONS = 60
"""Number of bisections of an angle below π/2, enough for float64 precision."""
SAME = 1e-12
"""Relative tolerance for equality: larger than rounding errors of sums, smaller than differences of
scores."""

Verdict = Literal["better", "worse", "not significant", "too few to tell"]


@dataclass(frozen=True)
class Paired:
    """One method minus another over the same seeds."""

    mean: float
    sd: float | None
    """Standard deviation of the differences; None for one pair."""
    low: float | None
    high: float | None
    """Ends of the 95 % interval of the mean; None with fewer than `FEWEST` pairs."""
    p: float | None
    """Two-sided p-value of the sign-flip test; None with fewer than `FEWEST` pairs."""
    n: int
    wins: int
    ties: int
    """Numbers of pairs in which the method is better, and in which both are equal."""

    @property
    def verdict(self) -> Verdict:
        if self.low is None or self.high is None:
            return "too few to tell"
        if self.low <= 0.0 <= self.high:
            return "not significant"
        return "better" if self.mean > 0 else "worse"

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval contains 0; None with too few pairs."""
        return None if self.low is None else self.verdict == "not significant"


def paired(scores: Sequence[float], against: Sequence[float], level: float = LEVEL) -> Paired:
    """Compare two methods whose scores are in the same order of seeds.

    Raises:
        ValueError: the numbers of scores differ, or there are none.

    Example:
        >>> found = paired([0.84, 0.85, 0.86], [0.83, 0.83, 0.85])
        >>> round(found.mean, 4), found.wins, found.p, found.verdict
        (0.0133, 3, 0.25, 'not significant')
    """
    if len(scores) != len(against) or not scores:
        raise ValueError(
            f"a paired comparison needs a pair or more, got {len(scores)} and {len(against)} scores"
        )
    ours, theirs = (np.asarray(values, dtype=np.float64) for values in (scores, against))
    scale = float(np.abs(np.concatenate([ours, theirs])).max())
    differences = ours - theirs
    differences[np.abs(differences) <= SAME * scale] = 0.0
    n, mean = len(differences), float(differences.mean())
    sd = float(differences.std(ddof=1)) if n > 1 else None
    low = high = p = None
    if sd is not None and n >= FEWEST:
        half = t_quantile(level, n - 1) * sd / math.sqrt(n)
        low, high, p = mean - half, mean + half, sign_flip_p(differences)
    wins, ties = int((differences > 0).sum()), int((differences == 0).sum())
    return Paired(mean, sd, low, high, p, n, wins, ties)


def mean_over_tasks(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Seed → mean of a method's scores over tasks, for seeds that every task has.

    Args:
        scores: task → seed → score.

    Example:
        >>> mean_over_tasks({"sst2": {"0": 0.8, "1": 0.9}, "cola": {"0": 0.4}})
        {'0': 0.6000000000000001}
    """
    tables = list(scores.values())
    shared = [seed for seed in tables[0] if all(seed in table for table in tables)]
    return {seed: sum(table[seed] for table in tables) / len(tables) for seed in shared}


def sign_flip_p(differences: Sequence[float] | Floats) -> float:
    """Share of sign assignments for which the mean is at least as far from 0.

    Exact for up to `EXACT_UP_TO` differences. For more, 65,536 assignments are sampled with a fixed
    seed, including the observed one, so that p is never 0.

    Example:
        >>> sign_flip_p([1.0, 2.0, 3.0]), sign_flip_p([0.0, 0.0])
        (0.25, 1.0)
    """
    sizes: Floats = np.abs(np.asarray(differences, dtype=np.float64))
    found = abs(float(np.sum(differences)))
    enough = found - SAME * float(sizes.sum())
    n = len(sizes)
    if n <= EXACT_UP_TO:
        sums: Floats = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums + size, sums - size])
        return float((np.abs(sums) >= enough).mean())
    signs = 2.0 * np.random.default_rng(0).integers(0, 2, size=(2**EXACT_UP_TO, n)) - 1.0
    as_far = int((np.abs(signs @ sizes) >= enough).sum())
    return (1 + as_far) / (1 + 2**EXACT_UP_TO)


@cache
def t_quantile(level: float, degrees: int) -> float:
    """The t with P(|T| < t) = level, for Student's t with `degrees` degrees of freedom.

    Example:
        >>> round(t_quantile(0.95, 2), 3), round(t_quantile(0.95, 9), 3)
        (4.303, 2.262)
    """
    low, high = 0.0, math.pi / 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_share(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _t_share(angle: float, degrees: int) -> float:
    """P(|T| < √degrees · tan(angle)), by the finite sums of Abramowitz & Stegun."""
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2 == 1
    term = total = 0.0
    for power in range(1 if is_odd else 0, degrees - 1, 2):
        term = term * cosine**2 * (power - 1) / power if total else cosine**power
        total += term
    return (angle + sine * total) * 2 / math.pi if is_odd else sine * total
