"""Per tensor, the transform that measurably helps its readers most, or none.

No rule is right for every norm: on MiniLM-L6 gamma migration helps behind attention and harms
behind the feed-forward. All rules only differ in (s, z), so they can be tried on the spot: each
candidate is folded on paper, rounded as it will be rounded, and compared (`site_error`).

    candidates   nothing · gamma (norms) · smoothquant at three α · os_plus at every threshold
    chosen       of those that are worse than nothing under neither range, the one with the largest
                 mean of decibels; nothing wins a tie

Behind activation functions the same candidates serve. What a GELU gives is the worst tensor of
MiniLM-L6: one channel of 1,536 reaches 24 on a special token where the next reaches 6, and 64
points cannot say both. A factor a channel lets them.

Left out: what sites do to each other. Transforms of different sites share no number before
rounding, and a search over their combinations would cost a quantized pass for each.
"""

from __future__ import annotations

import torch

from attar.models.structure.views import NormSite
from attar.quantization.transforms.equivalent import (
    EquivalentTransform,
    TransformSite,
)
from attar.quantization.transforms.gamma import gamma_transform
from attar.quantization.transforms.observed import ReadRows
from attar.quantization.transforms.os_plus import os_plus_candidates
from attar.quantization.transforms.site_error import SiteError
from attar.quantization.transforms.smoothquant import smoothquant_transform

ALPHAS = (0.25, 0.5, 0.75)


def choose(
    site: TransformSite, rows: ReadRows, error: SiteError
) -> tuple[str, EquivalentTransform | None]:
    """The winning rule's name, and its transform; ("none", None) where nothing helps."""
    nothing = EquivalentTransform.of_scale(torch.ones(site.num_channels))
    floor = error.sqnr(nothing)
    best, name, chosen = floor.mean, "none", None
    for rule, candidate in _candidates(site, rows):
        found = error.sqnr(candidate)
        if found.mean > best and found.is_no_worse_than(floor):
            best, name, chosen = found.mean, rule, candidate
    return name, chosen


def _candidates(site: TransformSite, rows: ReadRows) -> list[tuple[str, EquivalentTransform]]:
    gamma = [("gamma", gamma_transform(site))] if isinstance(site, NormSite) else []
    return [
        *gamma,
        *(("smoothquant", smoothquant_transform(site, rows, alpha)) for alpha in ALPHAS),
        *(("os_plus", candidate) for candidate in os_plus_candidates(site, rows)),
    ]
