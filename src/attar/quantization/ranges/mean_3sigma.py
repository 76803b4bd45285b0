"""`mean_3sigma`: mean ± 3 standard deviations.

A start for learned step sizes (`start = "mean_3sigma"`): of a normal distribution three values in a
thousand lie outside, so a long tail does not decide the step. Whatever is wrong with the start,
learning must repair.

    low = max(μ − 3σ, min x),  high = min(μ + 3σ, max x)

*Differs from the paper*: LSQ+ takes the larger of |μ ± 3σ|, for weights; here both ends are used,
for activations. The range never reaches beyond the values themselves. Probabilities have
μ − 3σ < 0, where nothing lies, and half of their grid would be lost. Nor are probabilities cut at
μ + 3σ: with twenty tokens that is near 0.35, the tokens attended to most are those above it, and a
learning rate fit for steps does not bring them back.
Source: Bhalgat et al. 2020 (LSQ+), section 3.2, there for weights.
"""

from __future__ import annotations

from attar.quantization.method import ChosenRanges, Problem

NUM_SIGMAS = 3


def mean_3sigma(problem: Problem) -> ChosenRanges:
    """μ ± 3σ of each site's values, cut at the smallest and the largest of them; all of attention
    probabilities.
    """
    ranges = {}
    for site, seen in problem.calibration.statistics.items():
        if not seen.has_tokens:
            ranges[site] = (seen.low, seen.high)
            continue
        reach = NUM_SIGMAS * seen.std
        # of equal values the mean may lie a rounding beside them
        mean = min(max(seen.mean, seen.low), seen.high)
        ranges[site] = (max(mean - reach, seen.low), min(mean + reach, seen.high))
    return ChosenRanges(ranges)
