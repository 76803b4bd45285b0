"""Settings of `run = "tokenize"`, `"score"`, `"proxy"` and `"select"`. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from attar.config import Config
from attar.data.corpus.config import LearnedTokenizer, Part
from attar.models.config import ModelReference
from attar.scoring.config import Diversity
from attar.training.config import TrainStep


def _form_of(tokenizer: object) -> str:
    return "learned" if isinstance(tokenizer, (dict, LearnedTokenizer)) else "word"


class TokenizeMetrics(TypedDict):
    """What the step writes to its result; a gate can use only these names."""

    data: str
    documents: int
    reserved_documents: int
    bytes: int
    chunks: int
    tokens: int
    shards: int
    chunks_by_part: dict[str, int]
    chunks_by_source: dict[str, int]


class TokenizeStep(Config):
    """Split documents into chunks of tokens, stored in shards."""

    run: Literal["tokenize"] = "tokenize"
    data: str
    """Name of a `[data.<name>]` table; its train split is read as a stream."""
    tokenizer: Annotated[
        Annotated[str, Tag("word")] | Annotated[LearnedTokenizer, Tag("learned")],
        Discriminator(_form_of),
    ]
    """A step, folder, hub id or demo model whose tokenizer is used, or a table to train one."""
    max_length: int = Field(default=1024, ge=8, le=2**20)
    """Tokens per chunk that a model reads. A chunk stores one more token, which is only
    predicted."""
    source_column: str | None = None
    """Column with the source of each document; a chunk never mixes sources. None: one source."""
    reserve: float = Field(default=0.0, ge=0, lt=1)
    """Share of the documents to reserve for training the reference, by a hash of their text; they
    are never scored."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the documents to read, by a hash of their text."""
    max_documents: int | None = Field(default=None, gt=0)
    """Maximum number of documents to read; None: all."""
    expect_tokens: int | None = Field(default=None, gt=0)
    """Size of the corpus in tokens, used only by `attar plan`, which then reads no text. None:
    estimated from some of the documents."""
    shard_tokens: int = Field(default=2**24, ge=2**10, le=2**25)
    """Write a shard after this many tokens. One shard is held in memory."""


class ScoreStep(Config):
    """Score every chunk of a corpus: log p under a language model, or a proxy's prediction."""

    run: Literal["score"] = "score"
    model: str
    """A causal LM with the corpus's tokenizer (a step, folder, hub id or demo model), or a proxy
    step."""
    data: str
    """Name of a tokenize step."""
    part: Part = "scored"
    """Which chunks of the corpus: those to select from, or those reserved for a reference."""
    chunks: int | None = Field(default=None, ge=1)
    """Score a random sample of this many chunks; None: all. A proxy learns from a sample; a
    selection needs all."""
    batch_tokens: int = Field(default=4096, ge=1)
    """Tokens in one forward pass, padding included."""
    max_set_aside: float = Field(default=0.01, ge=0, le=1)
    """Maximum share of chunks without a valid score (such as NaN); above it the step stops."""
    seed: int | None = None
    """Seed of the sample; None: the recipe's. Equal seeds and sizes give the same chunks, and a
    larger sample contains a smaller one."""


class ScoreMetrics(TypedDict, total=False):
    """What the step may write to its result; a gate can use only these names."""

    data: str
    part: str
    chunks: int
    tokens: int
    """Number of predicted tokens."""
    flops: int
    nll: float | None
    """Mean negative log-likelihood of a language model, in nats per token."""
    mean_predicted: float | None
    """Mean predicted score of a proxy."""
    offline: dict[str, float]
    """FLOPs of scoring with the proxy, and of scoring with the teacher instead."""
    set_aside: dict[str, int]
    """Reason → number of chunks without a score."""


class ProxyMetrics(TypedDict):
    """What a proxy step writes to its result; a gate can use only these names."""

    chunks: int
    """Number of sampled chunks that have a score."""
    left_out: int
    """Number of sampled chunks without a score."""
    train_chunks: int
    spearman: dict[str, float]
    """Spearman correlation on the chunks used neither for training nor for choosing the checkpoint:
    value, low, high, n; and the value of the untrained proxy."""
    rmse: float
    """Root mean squared error on the same chunks, in nats per token."""
    scale: dict[str, float]
    num_params: int
    steps: int
    epochs: float
    kept_step: int
    precision: str
    train_seconds: float
    sample_tokens: int
    flops: dict[str, int]
    """FLOPs of teacher and reference on the sample, and of training the proxy."""


LOOP_SETTINGS = (
    *("model", "data", "epochs", "max_steps", "batch_size", "micro_batch_size", "learning_rate"),
    *("evaluations", "precision", "checkpoint_every"),
)
"""Settings that a proxy shares with a train step."""


class ProxyStep(Config):
    """Train a small model to predict the scores of a sample of chunks."""

    run: Literal["proxy"] = "proxy"
    model: ModelReference
    """Initial model, with the corpus's tokenizer; the reference is a good choice."""
    data: str
    """Name of the tokenize step."""
    teacher: str
    """Name of a score step, of all chunks or of a sample."""
    reference: str
    """Name of a score step of the same chunks."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the chunks to hold out: one half chooses the best checkpoint, the other half
    measures the Spearman correlation."""
    epochs: float = Field(default=3.0, gt=0)
    """Passes over the scored sample."""
    max_steps: int | None = Field(default=None, gt=0)
    """Number of optimizer steps; takes precedence over epochs."""
    batch_size: int = Field(default=32, gt=0)
    """Chunks per optimizer step."""
    micro_batch_size: int | None = Field(default=None, gt=0)
    """Chunks per forward pass; None: batch_size. The gradient is the same either way."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Peak learning rate."""
    evaluations: int = Field(default=6, ge=1)
    """Number of evaluations of the held-out loss, evenly spaced; the checkpoint with the lowest is
    kept."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """As in a train step."""
    checkpoint_every: int | None = Field(default=None, gt=0)
    """Optimizer steps between checkpoints; None: about once a minute."""
    seed: int | None = None
    """Random seed; None: the recipe's."""

    @model_validator(mode="after")
    def _the_loop_takes_these_settings(self) -> ProxyStep:
        try:
            _ = self.training
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        return self

    @property
    def scored_by(self) -> dict[str, str]:
        """Role of a score → name of its score step."""
        return {"teacher": self.teacher, "reference": self.reference}

    @property
    def training(self) -> TrainStep:
        """The train step that runs the proxy's training loop."""
        return TrainStep(**{name: getattr(self, name) for name in LOOP_SETTINGS})


class NearDuplicates(Config):
    """Find chunks that nearly repeat an earlier one."""

    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of word 5-grams above which a chunk is a near duplicate."""
    filter: bool = True
    """true: set them aside; false: only count them."""


class ExportDataStep(Config):
    """Write a corpus or a selection as files for other trainers."""

    run: Literal["export_data"] = "export_data"
    data: str
    """A tokenize step, a select step, or a table with source = "corpus"."""
    part: Literal["all", "scored", "reserved"] = "all"
    """Which chunks of a corpus to write."""
    format: Literal["jsonl", "parquet", "dataset"] = "dataset"
    """jsonl: compressed with zstd. dataset: a folder of Parquet files that `datasets.load_dataset`
    opens by its path."""


class ExportDataMetrics(TypedDict):
    """What the step writes to its result; a gate can use only these names."""

    data: str
    format: str
    rows: int
    tokens: int
    files: int
    columns: list[str]


class SelectMetrics(TypedDict, total=False):
    """What the step may write to its result; a gate can use only these names."""

    data: str
    method: str
    keep: float
    chunks: int
    kept: int
    tokens: int
    kept_tokens: int
    fates: dict[str, int]
    sources: dict[str, dict[str, int]]
    cut: float
    """The lowest score among the kept chunks."""
    mean_score: dict[str, float]
    nll: dict[str, float]
    """Of teacher and reference, in nats per token."""
    warnings: list[str]
    near_duplicates: dict[str, int]
    diversity: dict[str, Any]


class SelectStep(Config):
    """Choose the chunks of a corpus to train on."""

    run: Literal["select"] = "select"
    data: str
    """Name of the tokenize step whose chunks were scored."""
    teacher: str | None = None
    """Name of a score step."""
    reference: str | None = None
    """Name of a score step of the same corpus."""
    scores: str | None = None
    """method = "proxy" only, instead of teacher and reference: name of a score step whose model
    is a proxy."""
    method: Literal["difference_sampling", "gumbel", "random", "proxy"] = "difference_sampling"
    """How chunks are chosen; see the method cards."""
    keep: float = Field(default=0.5, gt=0, le=1)
    """Share of the chunks to keep, rounded down."""
    keep_by_source: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Source → share of its chunks to keep; `keep` applies to the other sources together."""
    temperature: float = Field(default=0.1, gt=0)
    """method = "gumbel" only: scale of the noise added to the scores, in nats per token."""
    trim: float = Field(default=0.0, ge=0, lt=1)
    """Share of the chunks with the highest scores to set aside; these usually repeat themselves."""
    minimum_tokens: int = Field(default=16, ge=1)
    """Minimum number of predicted tokens. Shorter chunks are set aside: a mean over a few tokens is
    noisy, so they would get the highest scores."""
    near_duplicates: Annotated[float, Field(gt=0, le=1)] | NearDuplicates | None = None
    """Search for near duplicates: a threshold, or a table; None: no search."""
    diversity: Diversity | None = None
    """Vendi scores before and after the selection; None: not measured."""
    seed: int | None = None
    """Random seed; None: the recipe's."""

    @model_validator(mode="after")
    def _scores_fit_the_method(self) -> SelectStep:
        needed = ("scores",) if self.method == "proxy" else ("teacher", "reference")
        given = [name for name in ("teacher", "reference", "scores") if getattr(self, name)]
        if given != list(needed):
            raise ValueError(
                f'method = "{self.method}" needs {" and ".join(needed)}, got '
                f"{' and '.join(given) or 'none of them'}"
            )
        return self

    @property
    def scored_by(self) -> dict[str, str]:
        """Role of a score → name of its score step."""
        if self.scores is not None:
            return {"predicted": self.scores}
        assert self.teacher is not None
        assert self.reference is not None
        return {"teacher": self.teacher, "reference": self.reference}

    @property
    def duplicates(self) -> NearDuplicates | None:
        """`near_duplicates` as a table."""
        found = self.near_duplicates
        return NearDuplicates(threshold=found) if isinstance(found, float | int) else found
