"""Settings of `run = "fold"`. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from pydantic import Field

from attar.config import Config

LARGEST_DIFFERENCE = 1e-4
"""Of logits in float32, relative to the largest: rounding of a matrix of a few hundred columns is a
hundred times smaller."""
LARGEST_BLOCK_ERROR = 1e-12
"""Of a block in float64."""


class FoldStep(Config):
    """Multiply every chain of linear maps in a model's feed-forwards into one matrix, and verify
    that the predictions stay the same."""

    run: Literal["fold"] = "fold"
    model: str
    """A step or folder whose feed-forwards are a variant (`ffn = "3w"`)."""
    data: str
    """Data whose training texts are used to compare logits."""
    examples: int = Field(64, ge=1)
    """Number of texts, or blocks of running text."""
    fold_norms: bool = False
    """Also multiply the scale of each norm into the matrix after it, if nothing else reads the
    norm; the norm stays, with a scale of 1."""
    max_relative_difference: float = Field(LARGEST_DIFFERENCE, gt=0, lt=1)
    """Maximum relative difference of the logits; above it nothing is published and the exit code is
    6."""
    seed: int | None = None
    """Seed of the choice of texts; None: the recipe's."""


class FoldMetrics(TypedDict):
    """What a fold step writes to its result."""

    variant: dict[str, str]
    """`from` and `to`."""
    folded: int
    """Blocks."""
    norms_folded: int
    certificate: dict[str, Any]
    """The largest differences of logits and of blocks, their limits, and the texts."""
    num_params: int
    tokens: int
    """Of the text whose operations are counted."""
    parts: dict[str, dict[str, dict[str, int]]]
    """`before` and `after` → part → parameters and operations."""
