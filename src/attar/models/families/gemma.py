"""Gemma's norms, which multiply by 1 + weight as precisely as the weight is stored.

transformers rounds the weight to float32 first. In a float64 copy of a model, by which a transform
is certified to change nothing, that rounding would look like a change.
"""

from __future__ import annotations

from types import new_class
from typing import Any

from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm


class _Precise(nn.Module):
    """x̂ ⊙ (1 + weight); of a float32 model the same bits as transformers'."""

    _norm: Any

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self._norm(x.float()) * (1.0 + self.weight)  # pyright: ignore
        return normed.type_as(x)


_OWN: tuple[Any, ...] = (GemmaRMSNorm, Gemma2RMSNorm, Gemma3RMSNorm)
PRECISE: dict[Any, Any] = {own: new_class(own.__name__, (_Precise, own)) for own in _OWN}
"""transformers' norms → ours."""


def use_precise_norms_(model: nn.Module) -> None:
    """Replace the norms' forward pass, not their weights."""
    for module in model.modules():
        if type(module) in PRECISE:
            module.__class__ = PRECISE[type(module)]
