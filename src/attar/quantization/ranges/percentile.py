"""`percentile`: leave a small share of the values outside the range.

The range of a site ends where a share of its histogram lies below it, on both sides: at 0.999 one
value in a thousand is clipped above and one below. What is lost on outliers is gained as a finer
grid for all the rest. The share is given, or the best of three by the error of the final outputs on
the calibration texts, which needs no labels. A share of 1 is the range of all values.
Source: Outlier Suppression (Wei et al. 2022), appendix, "Percentile"; there the choice is by the
labelled development set.
"""

from __future__ import annotations

from attar.quantization.calibration.calibrate import Calibration, Ranges
from attar.quantization.method import ChosenRanges, Problem

SHARES = (0.999, 0.9999, 0.99999)
"""The candidates of the paper."""


def ranges_at(share: float, calibration: Calibration) -> Ranges:
    """(quantile(1 − share), quantile(share)) of every site's histogram."""
    return {
        site: (seen.histogram.quantile(1 - share), seen.histogram.quantile(share))
        for site, seen in calibration.statistics.items()
    }


def percentile(problem: Problem) -> ChosenRanges:
    """The ranges at the share asked for, or at the share whose outputs stay nearest to float."""
    share = problem.config.percentile
    if share is not None:
        return ChosenRanges(ranges_at(share, problem.calibration), {"percentile": share})
    candidates = {share: ranges_at(share, problem.calibration) for share in SHARES}
    errors = {share: problem.output_error(ranges) for share, ranges in candidates.items()}
    best = min(errors, key=lambda share: errors[share])
    searched = [{"percentile": share, "output_error": error} for share, error in errors.items()]
    return ChosenRanges(candidates[best], {"percentile": best, "candidates": searched})
