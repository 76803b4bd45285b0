"""What a site is where an activation is quantized, and the kinds of them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator

Port = Literal["input", "output", "query", "key", "value", "probabilities"]
"""Where a tensor passes its module; the last four are inside an attention."""
StackName = Literal["encoder", "decoder"]
_Kind = Literal[
    "embedding",
    "projected_embedding",
    "query",
    "key",
    "value",
    "attention_probs",
    "context",
    "mha_norm",
    "cross_query",
    "cross_key",
    "cross_value",
    "cross_probs",
    "cross_context",
    "cross_norm",
    "ffn_act",
    "ffn_norm",
    "final_norm",
    "pooler_input",
    "classifier_input",
]
SITE_KINDS = get_args(_Kind)
SCORE_KINDS = ("query", "key")
"""Both factors of the attention scores."""
FORMER_KINDS = {"gelu": "ffn_act"}
"""Name in files and recipes of earlier versions → today's name."""
SiteKind = Annotated[_Kind, BeforeValidator(lambda kind: FORMER_KINDS.get(kind, kind))]
"""A kind as a file or a recipe names it."""
OF_THE_ENCODER = ("cross_key", "cross_value")
"""Kinds that lie in a decoder block and whose tokens are the encoder's."""


@dataclass(frozen=True)
class Site:
    """One activation tensor that is quantized."""

    fqn: str
    """The module it passes."""
    port: Port
    kind: str
    """One of `SITE_KINDS`."""
    block: int | None
    """Number of the block from 0 in its stack; None outside the blocks."""
    stack: StackName = "encoder"
    """Where it lies; a causal language model has a decoder only."""

    @property
    def name(self) -> str:
        """Unique in a model, and the key of every table about sites."""
        return f"{self.fqn}:{self.port}"

    @property
    def tokens(self) -> StackName:
        """Whose texts its rows are tokens of: those of its stack, but for what cross-attention
        makes of the encoder's output. Probabilities: whose queries.
        """
        return "encoder" if self.kind in OF_THE_ENCODER else self.stack

    @property
    def keys(self) -> StackName:
        """Whose texts the last axis of probabilities runs over."""
        return "encoder" if self.kind == "cross_probs" else self.stack

    @property
    def is_causal(self) -> bool:
        """Probabilities whose pairs (query, later key) are masked: a decoder's own."""
        return self.kind == "attention_probs" and self.stack == "decoder"
