"""Settings of `run = "cache"`: a teacher's outputs, stored for many students. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypedDict

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from attar.config import Config, as_tuples
from attar.tasks.table import KINDS, Kind, Objective

UNIFORM = re.compile(r"uniform:([1-9]\d*)")
TOO_LARGE = frozenset({"scores", "attention_scores", "attentions", "relations", "qkv"})
"""Teacher outputs that a cache does not store; setting them raises an error that explains why."""


def _sensible(states: tuple[int, ...] | str) -> tuple[int, ...] | str:
    if isinstance(states, str):
        if UNIFORM.fullmatch(states) is None:
            raise ValueError(
                f'{states!r} is neither a list such as [0, 2, 4] nor "uniform:<blocks of the '
                'student>", such as "uniform:3"'
            )
    elif list(states) != sorted(set(states)) or (states and states[0] < 0):
        raise ValueError(
            "hidden states must be distinct numbers from 0 (embedding output) in increasing "
            f"order, got {list(states)}"
        )
    return states


States = Annotated[tuple[int, ...] | str, AfterValidator(_sensible)]


class Sparse(Config):
    """Part of each token's distribution: the most likely ids, and a summary of the rest."""

    exact: int = Field(ge=1, le=4096)
    """Number of most likely ids whose probabilities are stored."""
    tail_draws: int | None = Field(default=None, ge=1, le=4096)
    """Number of ids drawn from the rest, for unbiased estimates of cross-entropy and KL."""
    tail: Literal["bucket"] | None = None
    """bucket: treat the rest as a single outcome; the losses are then lower bounds."""

    @model_validator(mode="after")
    def _speaks_of_the_tail_once(self) -> Sparse:
        if (self.tail_draws is None) == (self.tail is None):
            raise ValueError(
                "set either tail_draws = 8, which estimates the loss without bias, or tail = "
                '"bucket", which gives a lower bound of it'
            )
        return self

    @property
    def is_bucket(self) -> bool:
        return self.tail is not None

    @property
    def codec(self) -> tuple[int, int]:
        """Number of exact ids, and number of draws."""
        return self.exact, self.tail_draws or 0

    def said(self) -> str:
        tail = "the tail as one bucket" if self.is_bucket else f"{self.tail_draws} draws"
        return f"distributions ({self.exact} exact ids and {tail})"


def _form_of(distribution: object) -> str:
    return "table" if isinstance(distribution, (dict, Sparse)) else "word"


Distribution = Annotated[
    Annotated[Literal["dense"], Tag("word")] | Annotated[Sparse, Tag("table")],
    Discriminator(_form_of),
]
"""Discriminated by form, so that a mistake in one form is not reported for the other."""
RUNNING_TEXT = Sparse(exact=32, tail_draws=8)


class CacheMetrics(TypedDict):
    """What the step writes to its result; a gate can use only these names."""

    objective: str
    rows: int
    predictions: int
    logits: int | None
    hidden_states: dict[str, list[int]]
    tokens: dict[str, int]
    dtype: str
    precision: str
    precision_reason: str
    size_mib: float
    rows_per_s: float | None
    bytes_per_token: float | None
    distribution: dict[str, Any] | None
    mass_exact: float | None


def unkept(kind: Kind, *, logits: bool) -> str | None:
    """Why answers about data of a kind cannot be cached; None: they can.

    Args:
        logits: whether predictions are cached.
    """
    if kind.asks and logits:
        return (
            f"predictions of {kind.name} have one column per token of a window, and a cache stores "
            "predictions of one fixed width; name the teacher itself in the train step, or set "
            "logits = false and distil from hidden states"
        )
    if not kind.hides:
        return None
    return (
        f"{kind.name} masks different tokens in every epoch, so a teacher's answers "
        "cannot be cached; name the teacher itself in the train step, which then runs it live"
    )


class CacheStep(Config):
    """Run a teacher once on every training row; train steps name this step as their teacher."""

    run: Literal["cache"] = "cache"
    teacher: str
    """A step, folder, hub id or demo model with float weights."""
    data: str
    """Name of a `[data.<name>]` table, or of a step that makes rows; its train split is used."""
    objective: Objective | None = None
    """As in the train step of the students, like `template`, `label_words`, `max_length` and
    `max_target_length`; otherwise the rows would differ."""
    template: str | None = None
    """As in the train step of the students."""
    label_words: tuple[str, ...] | None = Field(default=None, min_length=2)
    """As in the train step of the students."""
    logits: bool = True
    """Store the teacher's predictions."""
    distribution: Distribution | None = None
    """What to store per token of running text: "dense" (4 bytes per id of the vocabulary), `{ exact
    = 32, tail_draws = 8 }` (about 95 bytes at a vocabulary of 49,152) or `{ exact = 50, tail =
    "bucket" }`. None: `{ exact = 32, tail_draws = 8 }` for running text, "dense" for everything
    else."""
    hidden_states: States | dict[Literal["encoder", "decoder"], States] = ()
    """Hidden states to store, where 0 is the embedding output; for all stacks, or per stack.
    "uniform:3": those that a student of 3 blocks needs for layer_map = "uniform"."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Number format of hidden states; bf16 takes half the space and rounds each value by at most
    0.4 %."""
    max_length: int = Field(default=128, ge=8, le=8192)
    """As in the train step of the students."""
    max_target_length: int = Field(default=128, ge=2, le=8192)
    """As in the train step of the students."""
    batch_size: int = Field(default=32, gt=0)
    """Rows per forward pass; affects only the speed."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of the teacher's computation; as in a train step."""
    seed: int | None = None
    """Seed of train_rows; None: the recipe's."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_too_large(cls, table: Any) -> Any:
        asked = sorted(TOO_LARGE & set(table)) if isinstance(table, dict) else []
        if asked:
            raise ValueError(
                f"{', '.join(asked)}: a cache stores no attention scores or relations, because "
                "they grow with the square of the text length and would take longer to read than "
                "to compute; name the teacher itself in the train step"
            )
        return as_tuples(table)

    @model_validator(mode="after")
    def _keeps_something(self) -> CacheStep:
        if self.objective is not None and (
            problem := unkept(KINDS[self.objective], logits=self.logits)
        ):
            raise ValueError(problem)
        states = self.hidden_states
        asked = any(states.values()) if isinstance(states, dict) else bool(states)
        if not (self.logits or asked):
            raise ValueError("nothing to store; set logits = true or hidden_states = [0, …]")
        return self

    def sparse(self, *, is_running: bool) -> Sparse | None:
        """How predictions are compressed; None: all logits are stored, or none.

        Args:
            is_running: whether the data is running text.
        """
        if not self.logits or self.distribution == "dense":
            return None
        default = RUNNING_TEXT if is_running else None
        return default if self.distribution is None else self.distribution

    def misfit(self, *, predicts_words: bool) -> str | None:
        """Why `distribution` does not fit the data; None if it does.

        Args:
            predicts_words: whether the teacher predicts a token at every position, rather than a
                class or a score per row.
        """
        if predicts_words or not isinstance(self.distribution, Sparse):
            return None
        return (
            f"distribution keeps {self.distribution.said()} of a vocabulary, but this teacher "
            "predicts one class or score per row; remove distribution"
        )
