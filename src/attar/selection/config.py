"""Settings of `run = "tokenize"`, `"score"` and `"select"`. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from attar.config import Config

Part = Literal["scored", "reserved"]


class TokenizeStep(Config):
    """Documents → shards of token chunks."""

    run: Literal["tokenize"] = "tokenize"
    data: str
    """Name of a `[data.<name>]` table; its train split is read as a stream."""
    tokenizer: str
    """A step, folder, hub id or demo model whose tokenizer is used."""
    max_length: int = Field(default=1024, ge=8, le=2**20)
    """Tokens a model will read of a chunk; a chunk has one more, which is predicted last."""
    source_column: str | None = None
    """Column that names each document's source. Sources are packed apart; None: all are one."""
    reserve: float = Field(default=0.0, ge=0, lt=1)
    """Share of the documents, by a hash of their text, that is never scored: what the reference is
    trained on."""
    max_documents: int | None = Field(default=None, gt=0)
    """Read only the first so many documents; None: all."""
    shard_tokens: int = Field(default=2**24, ge=2**10, le=2**25)
    """Tokens after which a shard is written. One shard is held in memory."""


class ScoreStep(Config):
    """log p of every chunk of a corpus under a language model."""

    run: Literal["score"] = "score"
    model: str
    """A causal LM with the corpus's tokenizer: a step, folder, hub id or demo model."""
    data: str
    """Name of a tokenize step."""
    part: Part = "scored"
    batch_tokens: int = Field(default=4096, ge=1)
    """Tokens in one forward pass, padding included."""


class SelectStep(Config):
    """The chunks of a corpus that teach most."""

    run: Literal["select"] = "select"
    data: str
    """Name of the tokenize step whose chunks were scored."""
    teacher: str
    """Name of a score step."""
    reference: str
    """Name of a score step of the same corpus."""
    method: Literal["difference_sampling", "gumbel", "random"] = "difference_sampling"
    keep: float = Field(default=0.5, gt=0, le=1)
    """Share of the chunks that is kept, rounded down."""
    keep_by_source: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Source → its own share; the others have `keep`, among themselves."""
    temperature: float = Field(default=0.1, gt=0)
    """Of `gumbel`, in nats a token: noise of this size is added to the scores."""
    trim: float = Field(default=0.0, ge=0, lt=1)
    """Share of the highest scores that is set aside: repetition inside a chunk scores highest."""
    minimum_tokens: int = Field(default=1, ge=1)
    """Predicted tokens of a chunk; shorter ones are set aside."""
    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    """Jaccard similarity of word 5-grams from which a chunk is a near duplicate of an earlier one
    and set aside; None: none is looked for."""
    seed: int | None = None
    """None: the recipe's."""
