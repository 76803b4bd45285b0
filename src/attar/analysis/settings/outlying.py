"""Settings of the studies that ask which dimensions and tokens stand out. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from attar.analysis.settings.shared import AnalyzeSettings, Distinct, Share, Texts, TextStudy

Criterion = Literal[
    "gamma_3sigma", "gamma_and_bias_3sigma", "activation_std", "activation_magnitude"
]
WEIGHT_CRITERIA = ("gamma_3sigma", "gamma_and_bias_3sigma")
"""They look at norms' weights and read no text."""
Places = Literal["norms", "hidden_states"]


class OutlierCriterion(TextStudy):
    """What the studies share that speak of outlier dimensions: how one is recognised."""

    criterion: Criterion = "gamma_3sigma"
    at: Places | None = None
    """Where activations are looked at: the norms' outputs, or the hidden states (behind the
    embedding and behind each block). None: activation_std at the norms, activation_magnitude at the
    hidden states."""
    magnitude: float = Field(default=6.0, gt=0)
    """Of activation_magnitude: a value so large …"""
    token_share: Share = 0.06
    """… in this share of the tokens …"""
    layer_share: Share = 0.25
    """… of this share of the blocks."""

    @property
    def places(self) -> Places:
        """Where the criterion looks."""
        is_magnitude = self.criterion == "activation_magnitude"
        return self.at or ("hidden_states" if is_magnitude else "norms")

    @property
    def reads_texts(self) -> bool:
        """Whether the criterion looks at activations; a norm's γ is there without a text."""
        return self.criterion not in WEIGHT_CRITERIA

    @model_validator(mode="after")
    def _weights_lie_in_norms(self) -> OutlierCriterion:
        if self.at == "hidden_states" and not self.reads_texts:
            raise ValueError(
                f'at = "hidden_states" does not go with criterion = {self.criterion!r}, which '
                "looks at the weights of norms; leave out at, or ask for activation_std or "
                "activation_magnitude"
            )
        return self


class OutliersStep(OutlierCriterion):
    """Which hidden dimensions are outliers, how large values grow with depth, and which tokens
    have massive ones.
    """

    study: Literal["outliers"] = "outliers"
    activations: bool = True
    """False: no more is read than the criterion needs; the figures of the hidden states and the
    massive activations are left out."""

    @property
    def passes(self) -> tuple[int, int]:
        return int(self.activations or self.reads_texts), 0


class OutlierTokensStep(OutlierCriterion):
    """Which tokens carry the largest values of the outlier dimensions."""

    study: Literal["outlier_tokens"] = "outlier_tokens"
    top_share: Share = 0.01
    """Share of the tokens at each place that counts as carrying."""
    dimensions: int = Field(default=6, gt=0)
    """Outlier dimensions looked at, those of most places first."""

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0


class GammaStep(AnalyzeSettings):
    """The scales γ and biases β of every norm. It reads no texts."""

    study: Literal["gamma"] = "gamma"


class HistogramsStep(AnalyzeSettings):
    """How large the values of the hidden states are, layer by layer, in one model or in two."""

    study: Literal["histograms"] = "histograms"
    compare_with: str | None = None
    """A second model, shown beside the first: with and without a loss, teacher and student."""
    data: str | None = None
    """Name of a `[data.<name>]` table, whose train split is read; None: one question with its
    context, written for this study."""
    calibration: Texts = Texts()
    layers: Distinct[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)
    """Hidden states shown: 0 is the embeddings', k what leaves block k − 1. None: the embeddings'
    and about six more, evenly spread."""

    @model_validator(mode="after")
    def _two_models_are_two(self) -> HistogramsStep:
        if self.compare_with == self.model:
            raise ValueError(
                f"compare_with names {self.model!r}, the model itself; name another one, or leave "
                "it out"
            )
        return self

    @property
    def passes(self) -> tuple[int, int]:
        return (0 if self.data is None else 1 + (self.compare_with is not None)), 0
