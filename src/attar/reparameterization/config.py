"""Settings of `run = "fold"`. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from pydantic import Field

from attar.config import Config

LARGEST_DIFFERENCE = 1e-4
"""Maximum difference of float32 logits relative to the largest; rounding in a matrix with a few
hundred columns is a hundred times smaller."""
LARGEST_BLOCK_ERROR = 1e-12
"""Maximum relative error of a block in float64."""


class FoldStep(Config):
    """Merge every chain of linear layers in a model's feed-forwards into one matrix, and verify
    that the outputs stay the same."""

    run: Literal["fold"] = "fold"
    model: str
    """Step or folder of a model with a feed-forward variant, such as `ffn = "3w"`."""
    data: str
    """Data whose training texts are used to compare logits."""
    examples: int = Field(64, ge=1)
    """Number of texts, or blocks of running text."""
    fold_norms: bool = False
    """Also fold the scale and shift of each norm into the matrix after it, if nothing else reads
    the norm. The norm is kept, with a scale of 1."""
    max_relative_difference: float = Field(LARGEST_DIFFERENCE, gt=0, lt=1)
    """Maximum relative difference of the logits. If it is exceeded, nothing is published and the
    exit code is 6."""
    seed: int | None = None
    """Seed of the sample of texts; None: the recipe's."""


class FoldMetrics(TypedDict):
    """Metrics of a fold step."""

    variant: dict[str, str]
    """`from` and `to`."""
    folded: int
    """Number of folded blocks."""
    norms_folded: int
    certificate: dict[str, Any]
    """The largest differences of logits and of blocks, their limits, and the texts."""
    num_params: int
    tokens: int
    """Length of the text whose operations are counted."""
    parts: dict[str, dict[str, dict[str, int]]]
    """`before` and `after` → part → parameters and operations."""
