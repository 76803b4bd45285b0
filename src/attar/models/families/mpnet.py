"""MPNet's attention, computed by transformers' pluggable attention function.

transformers implements MPNet's attention inline instead of calling the function named in the
config, so its scores could not be captured, its probabilities not be quantized, and no fused kernel
be used. `use_attention_function_` changes that: same weights, same outputs up to rounding.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention
from transformers.models.t5.modeling_t5 import eager_attention_forward

__all__ = ["Attention", "eager_attention_forward", "use_attention_function_"]


class Attention(MPNetSelfAttention):
    """softmax(q kᵀ / √K + position bias + mask) v, by the function named in the config."""

    is_causal = False
    config: Any

    @property
    def scaling(self) -> float:
        return self.attention_head_size**-0.5

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **_: Any,
    ) -> tuple[Any, Any] | tuple[Any]:
        batch, tokens, _width = hidden_states.shape
        heads = (batch, tokens, -1, self.attention_head_size)
        q, k, v = (m(hidden_states).view(heads).transpose(1, 2) for m in (self.q, self.k, self.v))
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        context, probabilities = attend(
            *(self, q, k, v, attention_mask),
            dropout=self.dropout.p if self.training else 0.0,
            scaling=self.scaling,
            position_bias=position_bias,
        )
        out = self.o(context.reshape(batch, tokens, self.all_head_size))
        return (out, probabilities) if output_attentions else (out,)


def use_attention_function_(model: nn.Module) -> None:
    """Make every attention of an MPNet call the attention function named in its config."""
    for module in model.modules():
        if type(module) is MPNetSelfAttention:
            module.__class__ = Attention
            module.config = model.config
