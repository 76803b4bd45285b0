"""Settings of `run = "analyze"`, one class per study. Imports no torch.

`passes` gives the cost of a study for the plan: forward passes over the calibration texts, and over
the validation rows. The default of `study` is `outliers`, so the union is discriminated by a
function.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from attar.config import Config, as_tuples
from attar.models.structure.site_kinds import SITE_KINDS, SiteKind
from attar.quantization.config import Texts

Width = Annotated[int, Field(ge=2, le=8)]
Share = Annotated[float, Field(gt=0, le=1)]


def _all_different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise ValueError(f"{twice[0]!r} is listed twice; list it once")
    return values


T = TypeVar("T")
Distinct = Annotated[tuple[T, ...], AfterValidator(_all_different)]
"""Distinct values; a repeated one is an error."""


ByName = dict[str, Any]
Number = float
"""Alias, because a metric is named `float`."""


class AnalyzeMetrics(TypedDict, total=False):
    """Metrics that studies can write to the step's result; gates can use only these."""

    study: str
    examples: int
    tokens: int
    bits: int
    metric: str
    num_rows: int
    num_passages: int
    float: Number
    quantized: Number
    kinds: ByName
    values: ByName
    sites: ByName
    num_sites: int
    num_problematic: int
    lowest_cosine: Number
    norms: Any
    mean_gain: ByName
    gamma: ByName
    norms_with_bias: int
    hidden_size: int
    criterion: str
    border: Number
    magnitude: Number
    layer_share: Number
    outliers: ByName
    recognised: ByName
    num_outlier_dimensions: ByName
    massive_activations: ByName
    kurtosis: ByName
    max_to_median: ByName
    largest_magnitude: ByName
    top_share: Number
    outlier_dimensions: list[int]
    carriers: ByName
    encoder: ByName
    """The two figures above, if there are two stacks; likewise `decoder`."""
    decoder: ByName
    bins_per_octave: int
    tokens_of: dict[str, int]
    text: str
    magnitudes: ByName
    disabled: str
    null_seeds: int
    found: str
    full: Number
    full_se: Number
    damage: ByName


class AnalyzeSettings(Config):
    """Analyze why a model is hard to quantize, with one study per step."""

    run: Literal["analyze"] = "analyze"
    model: str
    """Train step, folder, hub id or demo model, with float weights."""

    @property
    def passes(self) -> tuple[int, int]:
        """Forward passes over the calibration texts, and over the validation rows."""
        return 0, 0


class TextStudy(AnalyzeSettings):
    """Settings of studies that run texts through the model."""

    data: str
    """Name of a `[data.<name>]` table; its train split is read."""
    calibration: Texts = Texts()

    @property
    def passes(self) -> tuple[int, int]:
        return 1, 0


class ValidationRows(Config):
    """Settings of studies that evaluate a model on validation rows."""

    num_rows: int = Field(default=1000, gt=0)
    """Number of validation rows (documents, for running text), a seeded random sample; all of them
    if there are fewer."""
    batch_size: int = Field(default=32, gt=0)
    """Validation rows per forward pass."""


class JudgedStudy(ValidationRows, TextStudy):
    """Settings of studies that measure the data's first metric on validation rows."""


Criterion = Literal[
    "gamma_3sigma", "gamma_and_bias_3sigma", "activation_std", "activation_magnitude"
]
WEIGHT_CRITERIA = ("gamma_3sigma", "gamma_and_bias_3sigma")
"""Criteria that use only the weights of norms and read no texts."""
Places = Literal["norms", "hidden_states"]


class OutlierCriterion(TextStudy):
    """Settings of studies of outlier dimensions: the criterion for outliers."""

    criterion: Criterion = "gamma_3sigma"
    """What makes a dimension an outlier: its weight in the norms (γ, or γ and β, 3 standard
    deviations from the mean), or the spread or the magnitude of its activations."""
    at: Places | None = None
    """Which activations the criterion uses: the norms' outputs, or the hidden states (after the
    embedding and after each block). None: activation_std at the norms, activation_magnitude at the
    hidden states."""
    magnitude: float = Field(default=6.0, gt=0)
    """activation_magnitude only: minimum magnitude of a value …"""
    token_share: Share = 0.06
    """… in at least this share of the tokens …"""
    layer_share: Share = 0.25
    """… of at least this share of the blocks."""

    @property
    def places(self) -> Places:
        """The activations that the criterion uses."""
        is_magnitude = self.criterion == "activation_magnitude"
        return self.at or ("hidden_states" if is_magnitude else "norms")

    @property
    def reads_texts(self) -> bool:
        """Whether the criterion uses activations, and not only the weights of norms."""
        return self.criterion not in WEIGHT_CRITERIA

    @model_validator(mode="after")
    def _weights_lie_in_norms(self) -> OutlierCriterion:
        if self.at == "hidden_states" and not self.reads_texts:
            raise ValueError(
                f'at = "hidden_states" does not go with criterion = {self.criterion!r}, which '
                "reads the weights of norms; remove at, or use activation_std or "
                "activation_magnitude"
            )
        return self


class OutliersStep(OutlierCriterion):
    """Finds outlier dimensions, the growth of values with depth, and tokens with massive
    activations.
    """

    study: Literal["outliers"] = "outliers"
    activations: bool = True
    """Also compute statistics of hidden states and find massive activations; false: only what the
    criterion needs."""

    @property
    def passes(self) -> tuple[int, int]:
        return int(self.activations or self.reads_texts), 0


class OutlierTokensStep(OutlierCriterion):
    """Finds the tokens with the largest values of the outlier dimensions."""

    study: Literal["outlier_tokens"] = "outlier_tokens"
    top_share: Share = 0.01
    """Share of the tokens at each place that count as carriers."""
    dimensions: int = Field(default=6, gt=0)
    """Maximum number of outlier dimensions, those in the most places first."""

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0


class GammaStep(AnalyzeSettings):
    """Shows the scales γ and biases β of every norm. Reads no texts."""

    study: Literal["gamma"] = "gamma"


class HistogramsStep(AnalyzeSettings):
    """Histograms of the magnitudes of hidden states, layer by layer, of one or two models."""

    study: Literal["histograms"] = "histograms"
    compare_with: str | None = None
    """A second model to compare with, such as the teacher, or a student trained without a loss."""
    data: str | None = None
    """Name of a `[data.<name>]` table, whose train split is read; None: a built-in question with
    its context."""
    calibration: Texts = Texts()
    layers: Distinct[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)
    """Hidden states to show: 0 is the embedding output, k the output of block k − 1. None: the
    embedding output and about six more, evenly spaced."""

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


MOST_DIMENSIONS = 8
"""Maximum number of dimensions to disable by default."""


class DisablingStep(ValidationRows, OutlierCriterion):
    """Measures the quality lost without the outlier dimensions, compared with random dimensions."""

    study: Literal["disabling"] = "disabling"
    count: int | None = Field(default=None, gt=0)
    """Number of outlier dimensions to disable in each stack, those in the most places first; None:
    all, at most 8."""
    null_seeds: int = Field(default=10, ge=1)
    """Number of random sets of other dimensions, of the same size."""
    replacement: Distinct[Literal["zero", "mean"]] = Field(default=("zero", "mean"), min_length=1)
    """Value of a disabled dimension: 0, or its mean over the calibration tokens."""
    stacks: Distinct[Literal["encoder", "decoder"]] | None = Field(default=None, min_length=1)
    """Stacks in which dimensions are disabled; None: all."""
    template: str | None = None
    """Zero-shot choice only: prompt, with {0} and {1} for the texts of a row; None: the prompt that
    the model was trained with."""
    label_words: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Zero-shot choice only: label words in the order of the data's label_names; None: those of the
    model's training, or the label names."""
    per_token: bool = False
    """Zero-shot choice only: normalize log-likelihoods by the number of tokens, so that long label
    words are not at a disadvantage."""
    bootstrap: int = Field(default=2000, ge=100)
    """Number of bootstrap resamples for each interval."""

    @property
    def passes(self) -> tuple[int, int]:
        runs = len(self.replacement) * (1 + self.null_seeds)
        return int(self.reads_texts) + ("mean" in self.replacement), 1 + runs

    @model_validator(mode="after")
    def _words_need_a_template(self) -> Self:
        if self.template is not None and "{0}" not in self.template:
            raise ValueError(
                f"template {self.template!r} has no {{0}}, so every row would give the same "
                "prompt; put {0} where the text goes, and {1} where the second text of a pair goes"
            )
        return self


class SiteCosineStep(TextStudy):
    """Cosine similarity of each site's tensor with its quantized values."""

    study: Literal["site_cosine"] = "site_cosine"
    bits: Width = 6
    """Bits of the activation."""

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0


class GammaCosineStep(TextStudy):
    """Measures how much gamma migration improves the quantization of norm outputs."""

    study: Literal["gamma_cosine"] = "gamma_cosine"
    bits: Width = 6
    """Bits of the activation."""

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0


class LeaveOneKindStep(JudgedStudy):
    """Measures the metric with one kind of site left in float, and with only that kind
    quantized."""

    study: Literal["leave_one_kind"] = "leave_one_kind"
    bits: Width = 6
    """Bits of weights, embeddings and activations."""

    @property
    def passes(self) -> tuple[int, int]:
        """Passes for a model with all kinds of sites, such as BART. Others have fewer; the plan,
        which knows the model, counts them (`study_passes`)."""
        return 1, 2 + 2 * (1 + len(SITE_KINDS))


class ClippingStep(JudgedStudy):
    """Measures the metric and the share of clipped tokens when one kind of site is clipped."""

    study: Literal["clipping"] = "clipping"
    kinds: Distinct[SiteKind] = Field(default=("mha_norm", "ffn_act"), min_length=1)
    """Kinds of sites, each clipped separately."""
    shares: Distinct[Share] = Field(
        default=(1.0, 0.99, 0.98, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.05), min_length=1
    )
    """Shares of the kind's tokens that the clipping value leaves unchanged."""
    limits: Distinct[float] | None = Field(default=None, min_length=1)
    """Clipping values to use instead of shares. A positive one clips only values above it, a
    negative one only values below it."""

    @property
    def passes(self) -> tuple[int, int]:
        return 1, 1 + len(self.kinds) * len(self.limits or self.shares)

    @model_validator(mode="after")
    def _values_are_chosen_once(self) -> Self:
        if self.limits is not None and 0 in self.limits:
            raise ValueError("limits holds 0, which has no side to cut; use values above or below")
        if self.limits is not None and self.shares != type(self).model_fields["shares"].default:
            raise ValueError("limits and shares both choose the clipping values; remove one")
        return self


def study(table: Any) -> str:
    """The study of a table.

    Example:
        >>> study({"run": "analyze"}), study({"study": "gamma"})
        ('outliers', 'gamma')
    """
    asked = table.get("study") if isinstance(table, dict) else getattr(table, "study", None)
    return "outliers" if asked is None else str(asked)


MOVED = ("methods", "seconds", "sizes")
"""Former studies, which are now scripts in benchmarks/ with the same names."""


def _not_moved(table: Any) -> Any:
    if (asked := study(table)) in MOVED:
        raise ValueError(
            f"study {asked!r} was moved to a benchmark; remove the step and run "
            f"`python benchmarks/{asked}.py` from a checkout of attar, which makes the same table"
        )
    return as_tuples(table)


AnalyzeStep = Annotated[
    Annotated[OutliersStep, Tag("outliers")]
    | Annotated[OutlierTokensStep, Tag("outlier_tokens")]
    | Annotated[GammaStep, Tag("gamma")]
    | Annotated[HistogramsStep, Tag("histograms")]
    | Annotated[DisablingStep, Tag("disabling")]
    | Annotated[SiteCosineStep, Tag("site_cosine")]
    | Annotated[LeaveOneKindStep, Tag("leave_one_kind")]
    | Annotated[GammaCosineStep, Tag("gamma_cosine")]
    | Annotated[ClippingStep, Tag("clipping")],
    Discriminator(study),
    BeforeValidator(_not_moved),
]
