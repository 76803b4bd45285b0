"""Ranges from the extremes and moments of what was seen, without a search.

`minmax`: the mean, over calibration batches, of the batch's minimum and of its maximum. Nothing
else is clipped, so one outlier decides how coarse the grid is for everything else.

`ema_minmax`: a moving average of the same extremes, in which later batches count more. Batches are
sorted by length, the longest first, so the shortest texts count most (`calibrate.length_sorted`).

    low₁ = min x₁,  lowₙ = momentum · lowₙ₋₁ + (1 − momentum) · min xₙ,  and the same for high

`mean_3sigma`: mean ± 3 standard deviations, a start for learned step sizes.

    low = max(μ − 3σ, min x),  high = min(μ + 3σ, max x)

*Differs from LSQ+*, which takes the larger of |μ ± 3σ|, for weights; here both ends are used, for
activations, and the range never reaches beyond the values themselves. Attention probabilities are
not cut: with twenty tokens μ + 3σ is near 0.35, and the tokens attended to most are those above it.
Source: Jacob et al. 2018, section 3.1 (moving average); Bhalgat et al. 2020 (LSQ+), section 3.2.
"""

from __future__ import annotations

from attar.quantization.method import ChosenRanges, Problem


def minmax(problem: Problem) -> ChosenRanges:
    """low = mean over batches of min x, high = mean over batches of max x."""
    found = problem.calibration.statistics.items()
    return ChosenRanges({site: (seen.mean_low, seen.mean_high) for site, seen in found})


def ema_minmax(problem: Problem) -> ChosenRanges:
    """The moving averages of the ends, from the first calibration batch to the last."""
    momentum = problem.config.momentum
    ranges = {
        site: (seen.ema_low(momentum), seen.ema_high(momentum))
        for site, seen in problem.calibration.statistics.items()
    }
    return ChosenRanges(ranges, {"momentum": momentum})


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
