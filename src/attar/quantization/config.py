"""Settings of `run = "quantize"`. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from attar.config import Config


class Calibration(Config):
    """The texts that set the ranges."""

    data: str
    """Name of a `[data.<name>]` table; its train split is used."""
    examples: int = Field(default=256, gt=0)
    batch_size: int = Field(default=32, gt=0)
    seed: int | None = None
    """Which examples; None: the recipe's seed."""


class QuantizeSettings(Config):
    """What every quantization method shares."""

    run: Literal["quantize"] = "quantize"
    model: str
    """A step that trains, or a folder or hub id of a fine-tuned classifier."""
    calibration: Calibration
    weight_bits: int = Field(default=8, ge=2, le=8)
    activation_bits: int = Field(default=8, ge=2, le=8)
    embedding_bits: int | None = Field(default=None, ge=2, le=8)
    """None: weight_bits."""


class MinmaxStep(QuantizeSettings):
    """Range = mean over calibration batches of the batch minimum and maximum."""

    method: Literal["minmax"] = "minmax"


class PercentileStep(QuantizeSettings):
    """Range = the value below which a share of a histogram lies, on both sides."""

    method: Literal["percentile"] = "percentile"
    percentile: float | None = Field(default=None, gt=0.5, le=1)
    """A share such as 0.9999; None: the best of 0.999, 0.9999, 0.99999 by output error on the
    calibration texts."""


QuantizeStep = Annotated[MinmaxStep | PercentileStep, Field(discriminator="method")]
