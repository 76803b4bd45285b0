"""How one vector is made of a text: what is put before it, and what of its tokens' states is kept.

    states of the tokens (T, D) → pooling → the first `width` numbers → length 1

Query and passage may be read with different prefixes ("query: ", "passage: "), as E5 and its
descendants are trained. Imports no torch; the arithmetic is in `attar.models.embedder`, and is a
part of an exported graph.

Source: Reimers and Gurevych 2019, "Sentence-BERT" (arXiv 1908.10084), section 3; Kusupati et al.
2022, "Matryoshka Representation Learning" (arXiv 2205.13147) for the first numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from attar.config import Config

Side = Literal["query", "passage"]
SIDES: tuple[Side, Side] = ("query", "passage")
"""Of the two texts of a row: the first is read as a query, the second as a passage."""
MAX_PREFIX = 2000
"""Characters."""


class Embedding(Config):
    """From the states of a text's tokens to its vector."""

    pooling: Literal["mean", "cls", "last"] = "mean"
    """mean: over the tokens, padding excluded; cls: the first token; last: the last token."""
    normalize: bool = True
    """Vectors have length 1, so that products are cosines."""
    width: int | None = Field(default=None, gt=0)
    """Keep so many numbers, the first ones; None: all of the hidden size."""
    query_prefix: str = Field(default="", max_length=MAX_PREFIX)
    """Put before a text that is looked for, and before the first text of a row."""
    passage_prefix: str = Field(default="", max_length=MAX_PREFIX)
    """Put before a text that is found, and before the second text of a row."""

    def read_as(self, side: Side, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """What the model is given of some texts, as rows of one text.

        Example:
            >>> Embedding(query_prefix="query: ").read_as("query", ["a"])
            [('query: a',)]
        """
        prefix = self.query_prefix if side == "query" else self.passage_prefix
        return [(prefix + text,) for text in texts]
