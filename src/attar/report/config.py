"""Settings of `run = "report"`. Imports no torch."""

from __future__ import annotations

from typing import Literal

from attar.config import Config


class ReportStep(Config):
    """One self-contained page about everything the recipe made."""

    run: Literal["report"] = "report"
    title: str | None = None
    """None: the recipe's name."""
