"""Gemma's norms, with 1 + weight computed in the precision of the weight.

transformers first rounds the weight to float32. In a float64 copy of a model, which is used to
verify that a transform changes nothing, that rounding would look like a change.
"""

from __future__ import annotations

from types import new_class
from typing import Any

from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm


class _Precise(nn.Module):
    """x̂ ⊙ (1 + weight); for a float32 model bit-identical to transformers."""

    _norm: Any

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self._norm(x.float()) * (1.0 + self.weight)  # pyright: ignore
        return normed.type_as(x)


_OWN: tuple[Any, ...] = (GemmaRMSNorm, Gemma2RMSNorm, Gemma3RMSNorm)
PRECISE: dict[Any, Any] = {own: new_class(own.__name__, (_Precise, own)) for own in _OWN}
"""transformers' norms → the precise ones."""


def use_precise_norms_(model: nn.Module) -> None:
    """Replace the norms' forward pass, but not their weights."""
    for module in model.modules():
        if type(module) in PRECISE:
            module.__class__ = PRECISE[type(module)]
