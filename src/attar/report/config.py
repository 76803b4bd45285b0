"""Settings of `run = "report"`. Imports no torch."""

from __future__ import annotations

from typing import Literal

from attar.config import Config


class ReportStep(Config):
    """Write one self-contained page with all results of the recipe."""

    run: Literal["report"] = "report"
    title: str | None = None
    """Title of the page; None: the recipe's name."""
