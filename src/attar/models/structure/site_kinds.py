"""Definition of a site, where an activation is quantized, and the kinds of sites. Imports no
torch."""

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
"""Name in files and recipes of earlier versions → current name."""
SiteKind = Annotated[_Kind, BeforeValidator(lambda kind: FORMER_KINDS.get(kind, kind))]
"""A kind, as spelled in a file or a recipe."""
OF_THE_ENCODER = ("cross_key", "cross_value")
"""Kinds in a decoder block whose tokens are the encoder's."""


@dataclass(frozen=True)
class Site:
    """An activation tensor that is quantized."""

    fqn: str
    """Name of the module that it passes."""
    port: Port
    kind: str
    """One of `SITE_KINDS`."""
    block: int | None
    """Index of the block in its stack, from 0; None outside the blocks."""
    stack: StackName = "encoder"
    """Stack of the site; a causal language model has only a decoder."""

    @property
    def name(self) -> str:
        """Unique name within a model, used as the key of tables about sites."""
        return f"{self.fqn}:{self.port}"

    @property
    def tokens(self) -> StackName:
        """The stack whose tokens are its rows: its own, except for cross-attention's maps of the
        encoder's output. For probabilities: the stack of the queries.
        """
        return "encoder" if self.kind in OF_THE_ENCODER else self.stack

    @property
    def keys(self) -> StackName:
        """The stack whose tokens are the last axis of probabilities."""
        return "encoder" if self.kind == "cross_probs" else self.stack

    @property
    def is_causal(self) -> bool:
        """Whether it is probabilities with masked pairs (query, later key): a decoder's
        self-attention.
        """
        return self.kind == "attention_probs" and self.stack == "decoder"
