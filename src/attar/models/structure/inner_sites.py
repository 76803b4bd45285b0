"""The tensors inside a sublayer that one linear map alone reads: values, and what a GELU gives.

    attention   v = x W_vᵀ + b_v,  context = softmax(…) v     read by the output map
    ffn         h = act(x W_upᵀ + b)                          read by `down`

A scale of its own for each channel commutes with the softmax's weighted mean, and a shift does too,
because the weights sum to 1: the rows of W_v take both. An activation function commutes with
neither, so behind it stands a factor (`channel_factors`).

Weights that were rounded, or thinned by dropout in training, do not sum to 1 any more: a shift is
then scaled with their sum. Rounding is judged with everything else; in training it is noise around
the shift, as dropout is around the values.

Left out: key and value heads that serve several query heads, maps stored as a part of one module,
and gated feed-forwards; no family with them is quantized yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from attar.models.structure.anatomy import Anatomy
from attar.models.structure.views import LinearView, Shortcut


@dataclass(frozen=True)
class InnerSite:
    """A tensor inside a sublayer and the one map that reads it."""

    name: str
    """Of the module that makes it: the value map, or the activation function."""
    maker: LinearView | None
    """The value map; None behind an activation function."""
    reader: LinearView
    stack: str
    block: int
    tokens: str
    """The stack whose tokens its rows are: cross-attention's values are the encoder's."""

    @property
    def seen_at(self) -> tuple[str, Literal["input", "output"]]:
        """(module, port) where the tensor itself passes. The context would be no judge of values:
        it is their mean, and reaches less far."""
        if self.maker is not None:
            return self.maker.fqn, "output"
        return self.reader.fqn, "input"

    @property
    def consumers(self) -> tuple[LinearView, ...]:
        return (self.reader,)

    @property
    def num_channels(self) -> int:
        return self.reader.in_features

    @property
    def is_closed(self) -> bool:
        """Always: nothing else can see it."""
        return True

    @property
    def shortcuts(self) -> tuple[Shortcut, ...]:
        """None: no sum reads it."""
        return ()

    @property
    def can_shift(self) -> bool:
        """A shift has somewhere to go."""
        if self.maker is None:
            return False
        return self.maker.bias is not None and self.reader.bias is not None


def inner_sites(anatomy: Anatomy) -> Iterator[InnerSite]:
    """Every such tensor of a model, in the order of the forward pass."""
    for stack in anatomy.stacks:
        for block in stack.blocks:
            for attention in block.attentions:
                v, out = attention.v, attention.out
                tokens = "encoder" if attention.is_cross else stack.name
                if attention.kv_heads == attention.heads and v.part is None:
                    yield InnerSite(v.fqn, v, out, stack.name, block.index, tokens)
            ffn = block.ffn
            if not ffn.is_gated:
                act, name = ffn.act_fqn, stack.name
                yield InnerSite(act, None, ffn.down, name, block.index, name)
