"""Outlier Suppression+: every channel is centred, then the widest are narrowed to one threshold.

Outlier channels lie off centre: much of their range is a constant. Taking the middle away is free,
and one number then says how far a channel may reach:

    z_j = (max_j + min_j) / 2
    s_j = max(1, (max_j − z_j) / t, (min_j − z_j) / −t)

Only channels that reach beyond t are scaled. t is searched where the channels' reaches lie, evenly
in the logarithm, for the smallest error of the quantized readers under the range of all values.
Where a shift has nowhere to go (`site.can_shift`), z is 0.

Source: Outlier Suppression+ (Wei et al. 2023), equations 3 to 6.
*Differs from the paper:* readers include the shortcut, and weights are rounded too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attar.quantization.transforms.equivalent import EquivalentTransform, TransformSite
from attar.quantization.transforms.observed import ReadRows
from attar.quantization.transforms.site_error import SiteError

NUM_THRESHOLDS = 12
LOWEST_REACH = 0.1
"""Thresholds begin where a tenth of the channels still reaches less."""


def os_plus_transform(site: TransformSite, rows: ReadRows, error: SiteError) -> EquivalentTransform:
    """The shift of `site`, and the best scale of those searched; a threshold as wide as the widest
    channel, which scales none, is among them.
    """
    candidates = os_plus_candidates(site, rows)
    return max(candidates, key=lambda candidate: error.sqnr(candidate).all_values)


def os_plus_candidates(site: TransformSite, rows: ReadRows) -> list[EquivalentTransform]:
    """One transform for each threshold, the widest first."""
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
