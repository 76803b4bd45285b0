"""The structure of a model between its embeddings and its head: stacks of blocks of sublayers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from attar.models.structure.rows import StackRow
from attar.models.structure.views import (
    AttentionView,
    ChainView,
    FfnView,
    LinearView,
    NormView,
    Shortcut,
)


@dataclass(frozen=True)
class Sublayer:
    """A branch of a block, its norm, and the sum to which it is added."""

    kind: Literal["mha", "cross", "ffn"]
    inputs: tuple[LinearView, ...]
    """Maps that read the block's own hidden state."""
    norm: NormView | None
    """None: dropped by a variant of the feed-forward."""
    adder: str | None
    """The module that receives the shortcut; see `Shortcut.adder`."""

    @property
    def shortcut(self) -> Shortcut | None:
        """None if there is no map or no norm through which it could be accessed."""
        if self.norm is None or not self.inputs:
            return None
        return Shortcut(self.norm, self.adder, self.inputs[0])


@dataclass(frozen=True)
class Block:
    """One transformer layer."""

    fqn: str
    module: nn.Module
    index: int
    attention: AttentionView
    cross_attention: AttentionView | None
    ffn: FfnView | ChainView
    sublayers: tuple[Sublayer, ...]
    """Attention, cross-attention if there is one, and ffn, unless a variant dropped its norm."""
    post_norms: tuple[NormView, ...] = ()
    """Norms of the sublayers' outputs, before the sums. Only a sum reads them, so no scale can be
    moved across one, and none is a site."""

    @property
    def norms(self) -> tuple[NormView, ...]:
        """Norms of the sublayers."""
        return tuple(sublayer.norm for sublayer in self.sublayers if sublayer.norm is not None)

    @property
    def attentions(self) -> tuple[AttentionView, ...]:
        cross = self.cross_attention
        return (self.attention,) if cross is None else (self.attention, cross)

    @property
    def linears(self) -> tuple[LinearView, ...]:
        """Every linear map of the block, in the order of execution."""
        attention = [view for a in self.attentions for view in (a.q, a.k, a.v, a.out)]
        return (*attention, *self.ffn.maps)


@dataclass(frozen=True)
class Stack:
    """An encoder or a decoder."""

    name: str
    row: StackRow
    blocks_fqn: str
    blocks: tuple[Block, ...]
    tables: tuple[str, ...]
    """Names of the embedding tables that are summed."""
    embedding_norm: NormView | None
    embedding_map: LinearView | None
    """Map from the embeddings' width to the hidden size; None: the widths are equal."""
    final_norm: NormView | None
    shared_bias: str | None
    """Name of the table of relative positions that all blocks use."""
