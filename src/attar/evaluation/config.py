"""Settings of `run = "evaluate"`. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attar.config import Config


class Speed(Config):
    """How latency is measured: models take turns, so that a busy moment hits all of them alike."""

    batch_sizes: tuple[int, ...] = (1, 8)
    tokens: int = Field(default=128, gt=0)
    threads: int | None = Field(default=None, gt=0)
    """None: the cores this process may use."""
    rounds: int = Field(default=12, ge=3)
    """Turns each model gets."""
    calls: int = Field(default=5, ge=1)
    """Forward passes timed in a turn."""


class EvaluateStep(Config):
    """Measure models of any form on the same data and the same machine."""

    run: Literal["evaluate"] = "evaluate"
    models: tuple[str, ...] = Field(min_length=1)
    """Steps (trained, quantized, exported), folders, hub ids or demo models. Differences are
    against the first and against the one before."""
    data: str
    split: Literal["validation", "test"] = "validation"
    batch_size: int = Field(default=32, gt=0)
    bootstrap: int = Field(default=2000, ge=100)
    """Resamples behind every interval."""
    speed: Speed | None = Speed()
    """None (in TOML: speed = false): no timing."""
    seed: int | None = None
