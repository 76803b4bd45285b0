"""Gemma's norms, which multiply by 1 + weight as precisely as the weight is stored.

transformers rounds the weight to float32 first. In a float64 copy of a model, by which a transform
is certified to change nothing, that rounding would look like a change.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm


class Norm(GemmaRMSNorm):
    """x̂ ⊙ (1 + weight); of a float32 model the same bits as transformers'."""

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self._norm(x.float()) * (1.0 + self.weight)
        return normed.type_as(x)


def use_precise_norms_(model: nn.Module) -> None:
    """Replace the norms' forward pass, not their weights."""
    for module in model.modules():
        if type(module) is GemmaRMSNorm:
            module.__class__ = Norm
