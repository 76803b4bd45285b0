"""The contents of a row in the table of families: names of modules and of config fields.

Names are relative to the base model, or to a block if the class says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AttentionRow:
    """Names relative to the block. "c_attn[1/3]" is the middle third of a fused map."""

    core: str
    q: str
    k: str
    v: str
    out: str
    norm: str
    adder: str | None = None
    """Module whose second argument is the shortcut; None: the block itself computes the sum, before
    `norm`."""
    q_norm: str | None = None
    """Norm of each head's queries, before rotary positions; no map reads it."""
    k_norm: str | None = None
    """As `q_norm`, for keys."""
    post_norm: str | None = None
    """Norm of the sublayer's output, before the sum, which is its only reader."""
    is_plain: bool = True
    """True: scores are q·k, scaled, plus a bias, computed by transformers' attention function.
    False: the computation between the maps is different, so only the maps are known."""


@dataclass(frozen=True)
class FfnRow:
    """Names relative to the block."""

    up: str
    down: str
    act: str
    norm: str
    gate: str | None = None
    adder: str | None = None
    """As in `AttentionRow`."""
    post_norm: str | None = None
    """As in `AttentionRow`."""
    whole: str | None = None
    """Module that is only the feed-forward; None: a module of the block calls `up`, `act` and
    `down` one by one."""


@dataclass(frozen=True)
class StackRow:
    """A stack of identical blocks; names relative to the base model."""

    name: str
    blocks: str
    attention: AttentionRow
    ffns: tuple[FfnRow, ...]
    """The kinds of feed-forward in the family; the one whose layers exist is used."""
    cross: AttentionRow | None = None
    tables: tuple[str, ...] = ()
    """Embedding tables that are summed for each token; empty: each is rounded separately."""
    embedding_norm: str | None = None
    embedding_map: str | None = None
    """Map after `embedding_norm` to the hidden size, in models with narrower embeddings."""
    embedding_size: str | None = None
    """Config field with the width of the embeddings, if it can differ from the hidden size;
    narrowing changes both."""
    first_norm: str | None = None
    """Norm that block 0 reads, if its attention's own norm is an Identity."""
    final_norm: str | None = None
    is_pre_norm: bool = False
    is_causal: bool = False
    heads: str = "num_attention_heads"
    """Config field."""
    num_blocks: str = "num_hidden_layers"
    """Config field."""
    intermediate: str = "intermediate_size"
    """Config field."""
    kv_heads: str | None = None
    """Config field, if keys and values can have fewer heads."""
    head_size: str | None = None
    """Config field; None: always hidden_size / heads."""
    shared_bias: str | None = None
    """Table of relative positions that all blocks of the stack use."""
    norm_offset: float = 0.0
    """Added to a norm's weight: 1 if it multiplies by 1 + weight."""


@dataclass(frozen=True)
class HeadSpace:
    """A space between two maps of a head, as wide as a hidden state but separate from it. Names as
    in `Family.heads`."""

    writer: str
    readers: tuple[str, ...] = ()
    """The readers that exist in the model are used; none: the output of `writer` is returned."""
    norm: str | None = None
    """Norm between writer and readers."""


@dataclass(frozen=True)
class Family:
    stacks: tuple[StackRow, ...]
    heads: tuple[str, ...]
    """First maps of all possible heads, relative to the base model or to the whole model."""
    head_spaces: tuple[HeadSpace, ...] = ()
    scales_embeddings: Callable[[Any], bool] = lambda config: False
    """Whether a model with this config multiplies its embeddings by √hidden_size."""
    scales_logits: str | None = None
    """Config field that makes a language head divide its input by √hidden_size."""
    max_tokens: Callable[[Any], int | None] = lambda config: None
    """Maximum number of input tokens, if positions are a learned table; None: no hard limit."""
    prepare_: Callable[[Any, str], None] | None = None
    """Changes a newly built model, if transformers' code lacks something that views need; the
    string is the requested attention implementation."""


def not_kept(kept: Sequence[int], count: int, stack: str) -> str | None:
    """Why a stack of `count` blocks cannot keep these blocks; None if it can."""
    strangers = [block for block in kept if not 0 <= block < count]
    if not strangers:
        return None
    return (
        f"keep_blocks {list(kept)} names {strangers}, but the model's {stack} has {count} "
        f"{'block' if count == 1 else 'blocks'}, 0 to {count - 1}; choose among those"
    )
