"""What the settings of several studies share. Imports no torch.

`passes` says what a study costs, for the plan: forward passes over the calibration texts, and over
the rows that judge a model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from attar.config import Config

Width = Annotated[int, Field(ge=2, le=8)]
Share = Annotated[float, Field(gt=0, le=1)]


def _all_different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise ValueError(f"{twice[0]!r} is there twice and would be measured twice; name it once")
    return values


T = TypeVar("T")
Distinct = Annotated[tuple[T, ...], AfterValidator(_all_different)]
"""Each is measured once; what is there twice is a mistake."""


class Texts(Config):
    """The training texts a model is watched on."""

    examples: int = Field(default=256, gt=0)
    batch_size: int | None = Field(default=None, gt=0)
    """None: 32, and 4 for a model that writes text."""
    seed: int | None = None
    """Which examples; None: the recipe's seed."""


class AnalyzeSettings(Config):
    """What every study shares."""

    run: Literal["analyze"] = "analyze"
    model: str
    """A step that trains, a folder, a hub id or a demo model, with float weights."""

    @property
    def passes(self) -> tuple[int, int]:
        """Forward passes over the calibration texts, and over the rows that judge."""
        return 0, 0


class TextStudy(AnalyzeSettings):
    """What the studies share that watch the model read."""

    data: str
    """Name of a `[data.<name>]` table; its train split is read."""
    calibration: Texts = Texts()

    @property
    def passes(self) -> tuple[int, int]:
        return 1, 0


class JudgedStudy(TextStudy):
    """What the studies share that measure the data's first metric on validation rows."""

    num_rows: int = Field(default=1000, gt=0)
    """A seeded choice of so many rows; all, where there are fewer."""
    batch_size: int = Field(default=32, gt=0)
