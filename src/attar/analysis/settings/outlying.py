"""Settings of the studies that ask which dimensions and tokens stand out. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attar.analysis.settings.shared import Share, TextStudy

Criterion = Literal["gamma_3sigma", "activation_std"]


class OutliersStep(TextStudy):
    """Which hidden dimensions are outliers at which norm."""

    study: Literal["outliers"] = "outliers"
    criterion: Criterion = "gamma_3sigma"


class OutlierTokensStep(TextStudy):
    """Which tokens carry the largest values of the outlier dimensions."""

    study: Literal["outlier_tokens"] = "outlier_tokens"
    criterion: Criterion = "gamma_3sigma"
    top_share: Share = 0.01
    """Share of the tokens of each norm that counts as carrying."""
    dimensions: int = Field(default=6, gt=0)
    """Outlier dimensions looked at, those of most norms first."""

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0
