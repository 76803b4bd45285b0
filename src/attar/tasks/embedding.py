"""How a text becomes one vector: its prefix, and the pooling of its tokens' states.

    states of the tokens (T, D) → pooling → the first `width` dimensions → length 1

Queries and passages may have different prefixes ("query: ", "passage: "), as E5 and similar models
are trained. Imports no torch; the computation is in `attar.models.embedder`, and is part of an
exported graph.

Source: Reimers and Gurevych 2019, "Sentence-BERT" (arXiv 1908.10084), section 3; Kusupati et al.
2022, "Matryoshka Representation Learning" (arXiv 2205.13147) for truncating vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from attar.config import Config

Side = Literal["query", "passage"]
SIDES: tuple[Side, Side] = ("query", "passage")
"""Sides of the two texts of a row: the first is a query, the second a passage."""
MAX_PREFIX = 2000
"""In characters."""


class Embedding(Config):
    """How to compute a text's vector from the states of its tokens."""

    pooling: Literal["mean", "cls", "last"] = "mean"
    """mean: mean over the tokens, without padding; cls: the first token; last: the last token."""
    normalize: bool = True
    """Scale vectors to length 1, so that dot products are cosines."""
    width: int | None = Field(default=None, gt=0)
    """Number of dimensions to keep, from the first; None: all."""
    query_prefix: str = Field(default="", max_length=MAX_PREFIX)
    """Prefix of a query, and of the first text of a row."""
    passage_prefix: str = Field(default="", max_length=MAX_PREFIX)
    """Prefix of a passage, and of the second text of a row."""

    def read_as(self, side: Side, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Add the side's prefix to some texts, as rows of one text.

        Example:
            >>> Embedding(query_prefix="query: ").read_as("query", ["a"])
            [('query: a',)]
        """
        prefix = self.query_prefix if side == "query" else self.passage_prefix
        return [(prefix + text,) for text in texts]
