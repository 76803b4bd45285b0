"""SmoothQuant: the difficulty of rounding is shared between a tensor and the weights that read it.

The scale puts a share α of the difficulty on the weights and leaves the rest:

    s_j = max |X_j|^α / max_i |W_ij|^(1−α),   z = 0

with W the rows of all maps that read the tensor, together. Channels without any activation or
weight keep s = 1. In post-LN models the shortcut restores the tensor; the paper, written for
pre-LN, needs no such thing.

Source: SmoothQuant (Xiao et al. 2023), equation 4; α = 0.5.
"""

from __future__ import annotations

import torch

from attar.quantization.transforms.equivalent import EquivalentTransform, TransformSite
from attar.quantization.transforms.observed import ReadRows


def smoothquant_transform(site: TransformSite, rows: ReadRows, alpha: float) -> EquivalentTransform:
    """Scales of `site` for a share `alpha`, 0 … 1, of the difficulty moved into the weights."""
    activations = torch.maximum(rows.high.abs(), rows.low.abs()).double()
    columns = torch.stack([c.weight.detach().abs().amax(0) for c in site.consumers])
    weights = columns.amax(0).double()
    scale = activations**alpha / weights ** (1 - alpha)
    is_silent = (activations == 0) | (weights == 0)
    return EquivalentTransform.of_scale(scale.masked_fill(is_silent, 1.0))
