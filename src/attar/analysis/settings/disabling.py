"""Settings of the study that asks what outlier dimensions are worth. Imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from attar.analysis.settings.outlying import OutlierCriterion
from attar.analysis.settings.shared import Distinct

MOST_DIMENSIONS = 8
"""Disabled where nothing is said of how many."""


class DisablingStep(OutlierCriterion):
    """What a model loses without its outlier dimensions, against random ones as many."""

    study: Literal["disabling"] = "disabling"
    count: int | None = Field(default=None, gt=0)
    """Outlier dimensions disabled in each stack, those of most places first; None: all that are
    found, at most 8."""
    null_seeds: int = Field(default=10, ge=1)
    """Random choices of as many other dimensions."""
    replacement: Distinct[Literal["zero", "mean"]] = Field(default=("zero", "mean"), min_length=1)
    """What a disabled dimension is set to: 0, or its mean over the calibration tokens there."""
    stacks: Distinct[Literal["encoder", "decoder"]] | None = Field(default=None, min_length=1)
    """Where dimensions are disabled; None: in every stack."""
    template: str | None = None
    """Of zero-shot choice: the text a language model reads, with {0} and {1} for a row's texts;
    None: the one it was trained with."""
    label_words: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Of zero-shot choice: a word for each class, in the order of the data's label_names; None:
    those it was trained with, or the names themselves."""
    per_token: bool = False
    """Of zero-shot choice: compare log-likelihoods a token, so that long words are not worse
    off."""
    num_rows: int = Field(default=1000, gt=0)
    """A seeded choice of so many validation rows (documents, of running text); all, where there
    are fewer."""
    batch_size: int = Field(default=32, gt=0)
    bootstrap: int = Field(default=2000, ge=100)
    """Resamples behind every interval."""

    @property
    def passes(self) -> tuple[int, int]:
        runs = len(self.replacement) * (1 + self.null_seeds)
        return int(self.reads_texts) + ("mean" in self.replacement), 1 + runs

    @model_validator(mode="after")
    def _words_need_a_template(self) -> Self:
        if self.template is not None and "{0}" not in self.template:
            raise ValueError(
                f"template {self.template!r} has no {{0}}, so every row would read the same; put "
                "{0} where the text goes, and {1} where the second one of a pair goes"
            )
        return self
