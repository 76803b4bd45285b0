"""Settings of `run = "augment"` and `run = "generate"`. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from pydantic import Field, model_validator

from attar.config import Config
from attar.data.corpus.config import Part
from attar.models.config import ModelReference
from attar.scoring.config import Diversity
from attar.tasks.table import Kind


class AugmentMetrics(TypedDict):
    """What the step writes to its result; a gate can use only these names."""

    data: dict[str, Any]
    rows_in: int
    rows_out: int
    copies: int
    has_labels: bool
    words_replaced_ratio: float
    words_asked: float
    forwards: float
    words_per_forward: float
    augment_seconds: float
    precision: str
    precision_reason: str


class GenerateMetrics(TypedDict):
    """What the step writes to its result; a gate can use only these names."""

    data: str
    part: str
    texts: int
    too_short: int
    """Number of chunks that have fewer tokens than a prompt."""
    prompt_tokens: int
    """Prompt tokens per text."""
    new_tokens: int
    """Generated tokens of all texts, including end tokens."""
    ended: int
    """Number of texts that ended with an end token, before the maximum length."""
    flops: int
    distinct: dict[str, Any]
    """Distinct-1 to distinct-4 of the generated texts and of the originals, and the number of texts
    compared."""
    diversity: dict[str, Any]
    """Vendi scores of the generated texts and of the originals; empty: not measured."""
    chunks: int
    tokens: int
    shards: int
    chunks_by_part: dict[str, int]
    chunks_by_source: dict[str, int]


class AugmentStep(Config):
    """Make more training sentences: a masked language model replaces words."""

    run: Literal["augment"] = "augment"
    model: ModelReference
    """A masked language model; its `config.json` names an architecture that ends in ForMaskedLM."""
    data: str
    """Name of a `[data.<name>]` table, or of a step that makes rows; its train split is read. Used
    as data, this step is that data with the new rows appended to its train split."""
    copies: int = Field(default=20, ge=1, le=100)
    """New sentences per sentence; TinyBERT used 10 to 30, fewer for larger tasks."""
    probability: float = Field(default=0.4, ge=0, le=1)
    """Probability that a word is replaced, in each copy."""
    top: int = Field(default=15, ge=1, le=1000)
    """Number of most likely candidates from which a replacement is drawn."""
    keep_labels: bool = False
    """true: a new row has the label of its source. false: it has no label, so a teacher must
    provide the target."""
    max_length: int = Field(default=128, ge=8, le=8192)
    """Maximum number of tokens the masked language model reads; later words are not replaced."""
    batch_tokens: int = Field(default=2048, ge=8)
    """Tokens in one forward pass of the masked language model, padding included. Larger batches are
    slower on a CPU, because their activations do not fit into its caches
    (benchmarks/augmentation.py)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """As in a train step. bf16 may change the order of words with nearly equal probability."""
    seed: int | None = None
    """Random seed; None: the recipe's."""

    def misfit(self, kind: Kind, data: str) -> str | None:
        """Why rows of this kind cannot be augmented; None if they can."""
        if kind.answer != "row":
            return (
                f"data {data!r} is for {kind.name}; augmentation supports classification and "
                "regression only; use such data"
            )
        if self.keep_labels and kind.is_score:
            return (
                f"data {data!r} has scores, which change with the words; remove keep_labels and "
                "let a teacher score the new rows"
            )
        if self.keep_labels and kind.gives_sets:
            return (
                f"data {data!r} is multi-label, and new rows do not keep the labels; remove "
                "keep_labels and let a teacher label the new rows"
            )
        return None


class GenerateStep(Config):
    """Make a corpus of generated text: a language model continues the beginnings of chunks."""

    run: Literal["generate"] = "generate"
    model: str
    """A causal language model with the corpus's tokenizer: a step, folder, hub id or demo model."""
    data: str
    """A tokenize, select or generate step, or a table with source = "corpus"."""
    part: Literal["all", Part] = "all"
    """Which chunks of the corpus to continue."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of these chunks, chosen at random."""
    chunks: int | None = Field(default=None, ge=1)
    """Number of these chunks, instead of a share. Equal seeds give the same chunks, and a larger
    sample contains a smaller one."""
    prompt_tokens: int = Field(default=128, ge=1, le=2**20)
    """Prompt length in tokens, from the beginning of a chunk; shorter chunks are skipped."""
    new_tokens: int = Field(default=896, ge=8, le=2**20)
    """Maximum number of generated tokens."""
    min_new_tokens: int = Field(default=0, ge=0)
    """Minimum number of generated tokens before the end token."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0: always the most likely token."""
    top_k: int | None = Field(default=None, ge=1)
    """Sample from this many most likely tokens; None: from all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the smallest set of most likely tokens whose probabilities reach this sum."""
    batch_tokens: int = Field(default=16384, ge=1)
    """Tokens in memory at a time, including those to be generated."""
    shard_tokens: int = Field(default=2**22, ge=2**10, le=2**25)
    """Tokens after which a shard is written, if no text ends early."""
    diversity: Diversity | None = None
    """Vendi scores of generated and original texts; None: not measured."""
    seed: int | None = None
    """Random seed; None: the recipe's."""

    @property
    def max_length(self) -> int:
        """Number of tokens a model reads of the longest text; the last token is only predicted."""
        return self.prompt_tokens + self.new_tokens - 1

    @property
    def batch_rows(self) -> int:
        """Number of texts that are generated together."""
        return max(1, self.batch_tokens // (self.prompt_tokens + self.new_tokens))

    @property
    def shard_rows(self) -> int:
        """Number of texts in a shard."""
        return max(1, self.shard_tokens // (self.prompt_tokens + self.new_tokens))

    @model_validator(mode="after")
    def _settings_fit(self) -> GenerateStep:
        if self.chunks is not None and self.share < 1:
            raise ValueError(
                f"chunks = {self.chunks} and share = {self.share} both set the number of texts; "
                "remove one"
            )
        if self.min_new_tokens > self.new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}, above new_tokens = {self.new_tokens}"
            )
        return self
