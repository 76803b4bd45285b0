"""Settings of a corpus: its parts, a learned tokenizer, and the schema of `corpus.json`. Imports no
torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from attar.config import Config

END = "<|endoftext|>"
"""End-of-document token."""
NUM_BYTES = 256
CORPUS_MAKERS = ("tokenize", "generate")
"""Steps whose output folder is a corpus."""
CHUNK_MAKERS = (*CORPUS_MAKERS, "select")
"""Steps whose output folder is a corpus or a selection from one."""
Part = Literal["scored", "reserved"]
"""Purpose of a chunk: to be scored and selected from, or to train the reference."""


def sentinel(number: int) -> str:
    """The sentinel token that replaces a hidden span, spelled as in T5's vocabulary."""
    return f"<extra_id_{number}>"


class ShardCounts(Config):
    """Counts of a shard, as recorded in `corpus.json`."""

    chunks: PositiveInt = Field(le=2**48)
    tokens: PositiveInt = Field(le=2**48)


class CorpusForm(Config):
    """Schema of `corpus.json`, which may come from an untrusted source."""

    model_config = ConfigDict(extra="ignore")

    data: str
    tokenizer: str
    max_length: PositiveInt = Field(le=2**20)
    vocabulary: PositiveInt = Field(le=2**32)
    end_id: NonNegativeInt
    sources: list[str]
    shards: list[ShardCounts]

    @model_validator(mode="after")
    def _require_fit(self) -> Self:
        if self.end_id >= self.vocabulary:
            raise ValueError(f"end_id is {self.end_id}, the vocabulary has {self.vocabulary} ids")
        if len(self.sources) != len({*self.sources}):
            raise ValueError("a source is named twice")
        "".join((self.data, *self.sources)).encode()  # raises if a name has an unpaired surrogate
        return self


class LearnedTokenizer(Config):
    """A byte-level BPE tokenizer, trained on documents before they are tokenized."""

    train_on: str
    """Name of a `[data.<name>]` table; documents are read from its train split."""
    vocab_size: int = Field(le=2**20)
    """Vocabulary size: the end token, special_tokens, 256 bytes, merges and sentinels."""
    special_tokens: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = ()
    """Additional special tokens besides `<|endoftext|>`, which ends a document."""
    sentinels: int = Field(default=0, ge=0, le=1000)
    """Number of tokens `<extra_id_0>`, `<extra_id_1>`, … for span corruption."""
    max_bytes: int = Field(default=2**28, gt=0)
    """Maximum amount of text to read, in bytes; if there is more, a sample of documents chosen by
    their hash."""

    @property
    def first_tokens(self) -> list[str]:
        """Tokens with the lowest ids, in the order of their ids from 0."""
        return [END, *self.special_tokens]

    @property
    def last_tokens(self) -> list[str]:
        """The sentinels in the order of their ids; as in T5's vocabulary, the first sentinel has
        the highest id.
        """
        return [sentinel(number) for number in reversed(range(self.sentinels))]

    @model_validator(mode="after")
    def _tokens_fit(self) -> Self:
        named = self.first_tokens + self.last_tokens
        least = len(named) + NUM_BYTES
        if self.vocab_size < least:
            raise ValueError(
                f"vocab_size must be at least {least} ({NUM_BYTES} bytes and {len(named)} special "
                f"tokens), got {self.vocab_size}"
            )
        if twice := sorted({token for token in named if named.count(token) > 1}):
            raise ValueError(
                f"special_tokens has {', '.join(map(repr, twice))} more than once, or it exists "
                "already; each token needs its own text"
            )
        return self
