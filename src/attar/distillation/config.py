"""Settings of `run = "augment"`. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from pydantic import Field

from attar.config import Config
from attar.models.config import ModelReference
from attar.tasks.table import Kind


class AugmentMetrics(TypedDict):
    """What the step writes to its result; a gate may name nothing else."""

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


class AugmentStep(Config):
    """More training sentences, by letting a masked language model replace words."""

    run: Literal["augment"] = "augment"
    model: ModelReference
    """A masked language model: its `config.json` names an architecture …ForMaskedLM."""
    data: str
    """Name of a `[data.<name>]` table, or of a step that makes rows; its train split is read. As
    data, this step is that data with the made rows behind those of its train split."""
    copies: int = Field(default=20, ge=1, le=100)
    """Sentences made of each one; TinyBERT took 10 to 30, fewer for bigger tasks."""
    probability: float = Field(default=0.4, ge=0, le=1)
    """Of each word, in each copy, to be replaced."""
    top: int = Field(default=15, ge=1, le=1000)
    """A replacement is drawn from so many words."""
    keep_labels: bool = False
    """Give a made row its source's class. False: it has none, and only a teacher judges it."""
    max_length: int = Field(default=128, ge=8, le=8192)
    """Tokens the masked language model reads; words behind them stay."""
    batch_tokens: int = Field(default=2048, ge=8)
    """Tokens in one forward pass of the masked language model, padding included. On a CPU more are
    slower: what lies between two layers must fit its caches (benchmarks/augmentation.py)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """As in training. bf16 may order words of nearly equal probability otherwise."""
    seed: int | None = None
    """None: the recipe's."""

    def misfit(self, kind: Kind, data: str) -> str | None:
        """Why rows of data of a kind cannot be copied; None: they can."""
        if kind.answer != "row":
            return (
                f"data {data!r} is for {kind.name}; words are replaced in texts of a "
                "classification or a regression only; name such data"
            )
        if self.keep_labels and kind.is_score:
            return (
                f"data {data!r} has scores, and a sentence with other words has another score; "
                "remove keep_labels and let a teacher judge the made rows"
            )
        return None
