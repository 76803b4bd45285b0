"""Ranges from the extremes and moments of the calibration statistics, without a search.

`minmax`: the mean over calibration batches of the batch minimum and maximum. Hardly anything is
clipped, so a single outlier can make the grid coarse for all other values.

`ema_minmax`: an exponential moving average of the same extremes, which weights later batches more.
Batches are sorted by length, longest first, so the shortest texts have the most weight
(`calibrate.length_sorted`).

    low₁ = min x₁,  lowₙ = momentum · lowₙ₋₁ + (1 − momentum) · min xₙ,  and the same for high

`mean_3sigma`: mean ± 3 standard deviations, an initialization for learned step sizes.

    low = max(μ − 3σ, min x),  high = min(μ + 3σ, max x)

*Differs from LSQ+*, which uses the larger of |μ ± 3σ| for weights. Here both ends are used, for
activations, and the range never exceeds that of the values. Attention probabilities are not
clipped: with twenty tokens μ + 3σ is about 0.35, and the most attended tokens are above it.
Source: Jacob et al. 2018, section 3.1 (moving average); Bhalgat et al. 2020 (LSQ+), section 3.2.
"""

from __future__ import annotations

from attar.quantization.method import ChosenRanges, Problem


def minmax(problem: Problem) -> ChosenRanges:
    """low = mean over batches of min x, high = mean over batches of max x."""
    found = problem.calibration.statistics.items()
    return ChosenRanges({site: (seen.mean_low, seen.mean_high) for site, seen in found})


def ema_minmax(problem: Problem) -> ChosenRanges:
    """Exponential moving averages of the batch minimum and maximum, in the order of the batches."""
    momentum = problem.config.momentum
    ranges = {
        site: (seen.ema_low(momentum), seen.ema_high(momentum))
        for site, seen in problem.calibration.statistics.items()
    }
    return ChosenRanges(ranges, {"momentum": momentum})


NUM_SIGMAS = 3


def mean_3sigma(problem: Problem) -> ChosenRanges:
    """μ ± 3σ of each site's values, limited to their minimum and maximum. Attention probabilities
    keep their full range.
    """
    ranges = {}
    for site, seen in problem.calibration.statistics.items():
        if not seen.has_tokens:
            ranges[site] = (seen.low, seen.high)
            continue
        reach = NUM_SIGMAS * seen.std
        # if all values are equal, the mean may differ from them by a rounding error
        mean = min(max(seen.mean, seen.low), seen.high)
        ranges[site] = (max(mean - reach, seen.low), min(mean + reach, seen.high))
    return ChosenRanges(ranges)
