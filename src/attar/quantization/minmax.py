"""`minmax`: a range as wide as the values.

For each site the mean, over calibration batches, of the batch's minimum and of its maximum. The
mean forgives one odd batch a little; nothing else is clipped, so one outlier decides how coarse the
grid is for everything else: the problem that every other method is about.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from attar.quantization.calibration import Calibration
from attar.quantization.config import MinmaxStep
from attar.quantization.method import ChosenRanges


def minmax(config: MinmaxStep, calibration: Calibration, model: PreTrainedModel) -> ChosenRanges:
    """low = mean over batches of min x, high = mean over batches of max x."""
    found = calibration.statistics.items()
    return ChosenRanges({site: (seen.mean_low, seen.mean_high) for site, seen in found})
