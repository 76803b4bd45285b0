"""Settings of `run = "analyze"`: one member a study. Imports no torch.

The members are in settings/, by what they ask of a model. A table without `study` asks for the
outliers, so the union is told apart by a function.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from attar.analysis.settings.disabling import DisablingStep
from attar.analysis.settings.few_bits import (
    ClippingStep,
    GammaCosineStep,
    LeaveOneKindStep,
    MethodsStep,
    PtqMethod,
    SecondsStep,
    SiteCosineStep,
    SiteKind,
    SizesStep,
)
from attar.analysis.settings.outlying import (
    Criterion,
    GammaStep,
    HistogramsStep,
    OutlierCriterion,
    OutliersStep,
    OutlierTokensStep,
)
from attar.analysis.settings.shared import (
    AnalyzeSettings,
    Distinct,
    JudgedStudy,
    Share,
    Texts,
    TextStudy,
    Width,
)

__all__ = [
    "AnalyzeSettings",
    "AnalyzeStep",
    "ClippingStep",
    "Criterion",
    "DisablingStep",
    "Distinct",
    "GammaCosineStep",
    "GammaStep",
    "HistogramsStep",
    "JudgedStudy",
    "LeaveOneKindStep",
    "MethodsStep",
    "OutlierCriterion",
    "OutlierTokensStep",
    "OutliersStep",
    "PtqMethod",
    "SecondsStep",
    "Share",
    "SiteCosineStep",
    "SiteKind",
    "SizesStep",
    "TextStudy",
    "Texts",
    "Width",
    "study",
]


def study(table: Any) -> str:
    """The study a table asks for.

    Example:
        >>> study({"run": "analyze"}), study({"study": "sizes"})
        ('outliers', 'sizes')
    """
    asked = table.get("study") if isinstance(table, dict) else getattr(table, "study", None)
    return "outliers" if asked is None else str(asked)


AnalyzeStep = Annotated[
    Annotated[OutliersStep, Tag("outliers")]
    | Annotated[OutlierTokensStep, Tag("outlier_tokens")]
    | Annotated[GammaStep, Tag("gamma")]
    | Annotated[HistogramsStep, Tag("histograms")]
    | Annotated[DisablingStep, Tag("disabling")]
    | Annotated[SiteCosineStep, Tag("site_cosine")]
    | Annotated[LeaveOneKindStep, Tag("leave_one_kind")]
    | Annotated[GammaCosineStep, Tag("gamma_cosine")]
    | Annotated[ClippingStep, Tag("clipping")]
    | Annotated[MethodsStep, Tag("methods")]
    | Annotated[SecondsStep, Tag("seconds")]
    | Annotated[SizesStep, Tag("sizes")],
    Discriminator(study),
]
