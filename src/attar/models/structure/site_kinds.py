"""The kinds of sites where activations are quantized. Imports no torch."""

from __future__ import annotations

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
FORMER_KINDS = {"gelu": "ffn_act"}
"""Name in files and recipes of earlier versions → today's name."""
SiteKind = Annotated[_Kind, BeforeValidator(lambda kind: FORMER_KINDS.get(kind, kind))]
"""A kind as a file or a recipe names it."""
