"""What a row of the table of families says: names of modules and of config fields.

Names are relative to the base model, or to a block where a class says so.
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
    """Module whose second argument is the shortcut; None: the block itself adds, before `norm`."""
    q_norm: str | None = None
    """Norm over each head's queries, before rotary positions; it has no readers among the maps."""
    k_norm: str | None = None
    """As `q_norm`, of keys."""
    post_norm: str | None = None
    """Norm of what the sublayer writes, before the sum that alone reads it."""
    is_plain: bool = True
    """Scores are q·k, scaled, plus a bias, by transformers' attention function. False: something
    else is computed of the maps' outputs, so only the maps are known."""


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
    """Module that is the feed-forward and nothing else; None: a module of the block calls `up`,
    `act` and `down` one by one."""


@dataclass(frozen=True)
class StackRow:
    """A stack of equal blocks; names relative to the base model."""

    name: str
    blocks: str
    attention: AttentionRow
    ffns: tuple[FfnRow, ...]
    """The kinds of feed-forward the family has; the one whose layers are there is meant."""
    cross: AttentionRow | None = None
    tables: tuple[str, ...] = ()
    """Embedding tables that are summed for each token; none: each is rounded alone."""
    embedding_norm: str | None = None
    embedding_map: str | None = None
    """Map after `embedding_norm` to the hidden size, in models whose embeddings are narrower."""
    embedding_size: str | None = None
    """Field of the config that has the width of the embeddings, where it is not that of the hidden
    states by definition; narrowing changes both."""
    first_norm: str | None = None
    """Norm that block 0 reads, where its attention's own is an Identity."""
    final_norm: str | None = None
    is_pre_norm: bool = False
    is_causal: bool = False
    heads: str = "num_attention_heads"
    """Field of the config."""
    num_blocks: str = "num_hidden_layers"
    """Field of the config."""
    intermediate: str = "intermediate_size"
    """Field of the config."""
    kv_heads: str | None = None
    """Field of the config, where keys and values can have fewer heads."""
    head_size: str | None = None
    """Field of the config; None: always hidden_size / heads."""
    shared_bias: str | None = None
    """Table of relative positions that all blocks of the stack use."""
    norm_offset: float = 0.0
    """What norms multiply by beyond their weight: 1 where that is 1 + weight."""


@dataclass(frozen=True)
class HeadSpace:
    """What lies between two maps of a head, as wide as a hidden state and none. Names as in
    `Family.heads`."""

    writer: str
    readers: tuple[str, ...] = ()
    """Those that the model has; none: what is written is handed out."""
    norm: str | None = None
    """Between writer and readers."""


@dataclass(frozen=True)
class Family:
    stacks: tuple[StackRow, ...]
    heads: tuple[str, ...]
    """First maps of every head the family can have, relative to the base model or to the whole."""
    head_spaces: tuple[HeadSpace, ...] = ()
    scales_embeddings: Callable[[Any], bool] = lambda config: False
    """Whether a model of this config multiplies its embeddings by √hidden_size."""
    scales_logits: str | None = None
    """Field of the config, where a language head can divide its input by √hidden_size."""
    max_tokens: Callable[[Any], int | None] = lambda config: None
    """Longest input, where positions are a learned table; None: no hard limit."""
    prepare_: Callable[[Any, str], None] | None = None
    """Changes a model that was just built, where transformers' own code lacks what views need; the
    word is the kind of attention that is wanted."""


def not_kept(kept: Sequence[int], count: int, stack: str) -> str | None:
    """Why a stack of `count` blocks cannot keep some of them; None: it has them all."""
    strangers = [block for block in kept if not 0 <= block < count]
    if not strangers:
        return None
    return (
        f"keep_blocks {list(kept)} names {strangers}, but the model's {stack} has {count} "
        f"{'block' if count == 1 else 'blocks'}, 0 to {count - 1}; choose among those"
    )
