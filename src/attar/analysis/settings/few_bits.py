"""Settings of the studies that ask what few bits do to a model. Imports no torch."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from attar.analysis.settings.shared import (
    AnalyzeSettings,
    Distinct,
    JudgedStudy,
    Share,
    TextStudy,
    Width,
)

PtqMethod = Literal[
    "minmax",
    "ema_minmax",
    "percentile",
    "omse",
    "smoothquant",
    "os_plus",
    "token_wise_clipping",
    "outlier_suppression",
    "step_size",
    "auto",
]
"""Methods of quantization that need no training data with labels."""
SiteKind = Literal[
    "embedding",
    "query",
    "key",
    "value",
    "attention_probs",
    "context",
    "mha_norm",
    "cross_query",
    "cross_key",
    "cross_value",
    "cross_probs",
    "cross_context",
    "cross_norm",
    "gelu",
    "ffn_norm",
    "pooler_input",
    "classifier_input",
]
"""The kinds of sites there are (`models/structure/sites.py`, which imports torch)."""


class SiteCosineStep(TextStudy):
    """How near each site's output is to itself in few bits."""

    study: Literal["site_cosine"] = "site_cosine"
    bits: Width = 6

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0


class GammaCosineStep(TextStudy):
    """What a norm's output gains when γ is taken out before it is quantized."""

    study: Literal["gamma_cosine"] = "gamma_cosine"
    bits: Width = 6

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0


class LeaveOneKindStep(JudgedStudy):
    """Quality with one kind of site left in float, and with it alone quantized."""

    study: Literal["leave_one_kind"] = "leave_one_kind"
    bits: Width = 6
    """Of weights, embeddings and activations."""

    @property
    def passes(self) -> tuple[int, int]:
        """For a model with every kind of site, such as BART; others have fewer, and the plan, which
        knows the model, counts them (`recipe/analyze_work.py`)."""
        return 1, 2 + 2 * (1 + len(get_args(SiteKind)))


class ClippingStep(JudgedStudy):
    """Quality and share of clipped tokens as the outputs of one kind of site are cut."""

    study: Literal["clipping"] = "clipping"
    kinds: Distinct[SiteKind] = Field(default=("mha_norm", "gelu"), min_length=1)
    """Kinds of sites, each cut by itself."""
    shares: Distinct[Share] = Field(
        default=(1.0, 0.99, 0.98, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.05), min_length=1
    )
    """The clipping value leaves this share of the kind's tokens whole."""

    @property
    def passes(self) -> tuple[int, int]:
        return 1, 1 + len(self.kinds) * len(self.shares)


class MethodsStep(JudgedStudy):
    """Methods of quantization side by side on one model."""

    study: Literal["methods"] = "methods"
    methods: Distinct[PtqMethod] = Field(
        default=(
            *("minmax", "percentile", "omse", "step_size", "smoothquant", "os_plus"),
            *("token_wise_clipping", "outlier_suppression", "auto"),
        ),
        min_length=1,
    )
    widths: Distinct[Width] = Field(default=(8, 6, 4), min_length=1)
    """Bits of weights, embeddings and activations alike."""
    refine: bool = True
    """False: leave out what a method learns by gradient; `auto` does so by itself."""

    @property
    def passes(self) -> tuple[int, int]:
        cells = len(self.methods) * len(self.widths)
        return 12 * cells, 1 + cells


class SecondsStep(TextStudy):
    """How long each method takes to find its activation ranges."""

    study: Literal["seconds"] = "seconds"
    methods: Distinct[PtqMethod] = Field(
        default=("minmax", "percentile", "omse", "token_wise_clipping"), min_length=1
    )
    bits: Width = 6
    rounds: int = Field(default=1, ge=1)
    """Times each method is timed; the methods take turns and the median counts."""

    @property
    def passes(self) -> tuple[int, int]:
        return 30 * len(self.methods) * self.rounds, 0


class SizesStep(AnalyzeSettings):
    """What a model takes on disk at several widths. It reads no texts."""

    study: Literal["sizes"] = "sizes"
    widths: Distinct[str] = Field(
        default=("8-8-8", "6-6-6", "4-4-8", "4-4-4", "2-2-4"), min_length=1
    )
    """Bits of weights, embeddings and activations; activations take no space."""

    @field_validator("widths")
    @classmethod
    def _widths_are_three_numbers(cls, widths: tuple[str, ...]) -> tuple[str, ...]:
        for word in widths:
            parts = word.split("-")
            if len(parts) != 3 or any(part not in set("2345678") for part in parts):
                raise ValueError(
                    f"{word!r} is no width: write bits of weights, embeddings and activations, "
                    'each 2 to 8, such as "4-4-8"'
                )
        return widths
