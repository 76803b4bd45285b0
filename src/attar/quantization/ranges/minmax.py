"""`minmax`: a range as wide as the values.

For each site the mean, over calibration batches, of the batch's minimum and of its maximum. The
mean forgives one odd batch a little; nothing else is clipped, so one outlier decides how coarse the
grid is for everything else: the problem that every other method is about.
"""

from __future__ import annotations

from attar.quantization.method import ChosenRanges, Problem


def minmax(problem: Problem) -> ChosenRanges:
    """low = mean over batches of min x, high = mean over batches of max x."""
    found = problem.calibration.statistics.items()
    return ChosenRanges({site: (seen.mean_low, seen.mean_high) for site, seen in found})
