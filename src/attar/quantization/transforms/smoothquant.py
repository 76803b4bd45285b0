"""SmoothQuant: distributes the quantization difficulty between a tensor and the weights reading it.

The scale moves a share α of the difficulty into the weights:

    s_j = max |X_j|^α / max_i |W_ij|^(1−α),   z = 0

where W are the rows of all linear layers that read the tensor. Channels whose activations or
weights are all zero keep s = 1. In post-LN models the residual connection undoes the scale; the
paper covers pre-LN models, which do not need this.

Source: SmoothQuant (Xiao et al. 2023), equation 4; α = 0.5.
"""

from __future__ import annotations

import torch

from attar.quantization.transforms.equivalent import EquivalentTransform, TransformSite
from attar.quantization.transforms.observed import ReadRows


def smoothquant_transform(site: TransformSite, rows: ReadRows, alpha: float) -> EquivalentTransform:
    """Scales of `site` that move a share `alpha` (0 … 1) of the difficulty into the weights."""
    activations = torch.maximum(rows.high.abs(), rows.low.abs()).double()
    columns = torch.stack([c.weight.detach().abs().amax(0) for c in site.consumers])
    weights = columns.amax(0).double()
    scale = activations**alpha / weights ** (1 - alpha)
    is_silent = (activations == 0) | (weights == 0)
    return EquivalentTransform.of_scale(scale.masked_fill(is_silent, 1.0))
