"""Outlier Suppression+: centres every channel, then scales the widest down to one threshold.

Outlier channels are asymmetric: a large part of their magnitude is a constant offset. Subtracting
the centre is free; then a single threshold t limits the magnitude of every channel:

    z_j = (max_j + min_j) / 2
    s_j = max(1, (max_j − z_j) / t, (min_j − z_j) / −t)

Only channels that exceed t are scaled. t is searched on a logarithmic grid over the channels'
magnitudes, for the smallest error of the quantized readers with the full range of values. z is 0
where a shift cannot be folded (`site.can_shift`).

Source: Outlier Suppression+ (Wei et al. 2023), equations 3 to 6.
*Differs from the paper:* readers include the residual connection, and weights are quantized too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attar.quantization.transforms.equivalent import EquivalentTransform, TransformSite
from attar.quantization.transforms.observed import ReadRows
from attar.quantization.transforms.site_error import SiteError

NUM_THRESHOLDS = 12
LOWEST_REACH = 0.1
"""The smallest threshold is this quantile of the channels' magnitudes."""


def os_plus_transform(site: TransformSite, rows: ReadRows, error: SiteError) -> EquivalentTransform:
    """The shift of `site` and the best of the searched scales. The candidates include the threshold
    that scales no channel.
    """
    candidates = os_plus_candidates(site, rows)
    return max(candidates, key=lambda candidate: error.sqnr(candidate).all_values)


def os_plus_candidates(site: TransformSite, rows: ReadRows) -> list[EquivalentTransform]:
    """One transform per threshold, from the largest to the smallest."""
    low, high = rows.low.double(), rows.high.double()
    shift = (low + high) / 2 if site.can_shift else torch.zeros_like(low)
    reach = torch.maximum(high - shift, shift - low)
    return [EquivalentTransform((reach / t).clamp(min=1), shift) for t in _thresholds(reach)]


def _thresholds(reach: Tensor) -> list[float]:
    widest = float(reach.max())
    narrow = float(torch.quantile(reach, LOWEST_REACH))
    if narrow <= 0:
        return [widest if widest > 0 else 1.0]
    ratios = torch.linspace(0, 1, NUM_THRESHOLDS, dtype=torch.float64)
    return [widest * (narrow / widest) ** float(ratio) for ratio in ratios]
