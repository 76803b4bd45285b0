"""Settings of `run = "analyze"`: one member for each study. Imports no torch.

`passes` says what a study costs, for the plan: forward passes over the calibration texts, and over
the rows that judge a model. A table without `study` means `outliers`, so the union is distinguished
by a function.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from attar.config import Config, as_tuples
from attar.models.structure.site_kinds import SITE_KINDS, SiteKind

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


class Texts(Config):
    """The training texts that are run through the model."""

    examples: int = Field(default=256, gt=0)
    """Number of texts."""
    batch_size: int | None = Field(default=None, gt=0)
    """Texts per batch; None: 32, or 4 for a generative model."""
    seed: int | None = None
    """Seed of the choice of examples; None: the recipe's."""


ByName = dict[str, Any]
Number = float
"""A metric is called `float`."""


class AnalyzeMetrics(TypedDict, total=False):
    """What one study or another writes to the step's result; a gate may name nothing else."""

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
    """Of two stacks the two figures above, and so `decoder`."""
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
    """Find out why a model is hard to quantize: one study per step."""

    run: Literal["analyze"] = "analyze"
    model: str
    """A step that trains, a folder, a hub id or a demo model, with float weights."""

    @property
    def passes(self) -> tuple[int, int]:
        """Forward passes over the calibration texts, and over the rows that judge."""
        return 0, 0


class TextStudy(AnalyzeSettings):
    """Settings of the studies that run texts through the model."""

    data: str
    """Name of a `[data.<name>]` table; its train split is read."""
    calibration: Texts = Texts()

    @property
    def passes(self) -> tuple[int, int]:
        return 1, 0


class JudgedStudy(TextStudy):
    """Settings of the studies that measure the data's first metric on validation rows."""

    num_rows: int = Field(default=1000, gt=0)
    """Number of validation rows, a seeded random sample; all of them if there are fewer."""
    batch_size: int = Field(default=32, gt=0)
    """Validation rows per forward pass."""


Criterion = Literal[
    "gamma_3sigma", "gamma_and_bias_3sigma", "activation_std", "activation_magnitude"
]
WEIGHT_CRITERIA = ("gamma_3sigma", "gamma_and_bias_3sigma")
"""They look at norms' weights and read no text."""
Places = Literal["norms", "hidden_states"]


class OutlierCriterion(TextStudy):
    """Settings of the studies of outlier dimensions: how one is recognised."""

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
                "reads the weights of norms; remove at, or use activation_std or "
                "activation_magnitude"
            )
        return self


class OutliersStep(OutlierCriterion):
    """Which hidden dimensions are outliers, how large values grow with depth, and which tokens
    have massive ones.
    """

    study: Literal["outliers"] = "outliers"
    activations: bool = True
    """false: only measure what the criterion needs, without statistics of hidden states and massive
    activations."""

    @property
    def passes(self) -> tuple[int, int]:
        return int(self.activations or self.reads_texts), 0


class OutlierTokensStep(OutlierCriterion):
    """Which tokens carry the largest values of the outlier dimensions."""

    study: Literal["outlier_tokens"] = "outlier_tokens"
    top_share: Share = 0.01
    """Share of the tokens at each place that count as carriers."""
    dimensions: int = Field(default=6, gt=0)
    """Maximum number of outlier dimensions, those in the most places first."""

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
"""Disabled where nothing is said of how many."""


class DisablingStep(OutlierCriterion):
    """What a model loses without its outlier dimensions, compared with random ones."""

    study: Literal["disabling"] = "disabling"
    count: int | None = Field(default=None, gt=0)
    """Number of outlier dimensions to disable in each stack, those in the most places first; None:
    all, at most 8."""
    null_seeds: int = Field(default=10, ge=1)
    """Number of random sets of equally many other dimensions."""
    replacement: Distinct[Literal["zero", "mean"]] = Field(default=("zero", "mean"), min_length=1)
    """Value of a disabled dimension: 0, or its mean over the calibration tokens."""
    stacks: Distinct[Literal["encoder", "decoder"]] | None = Field(default=None, min_length=1)
    """Where dimensions are disabled; None: in every stack."""
    template: str | None = None
    """Zero-shot choice only: the prompt, with {0} and {1} for a row's texts; None: the one the
    model was trained with."""
    label_words: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Zero-shot choice only: a word for each class, in the order of the data's label_names; None:
    those of its training, or the names themselves."""
    per_token: bool = False
    """Zero-shot choice only: compare log-likelihoods per token, so that long words are not at a
    disadvantage."""
    num_rows: int = Field(default=1000, gt=0)
    """Number of validation rows (documents, for running text), a seeded random sample; all of them
    if there are fewer."""
    batch_size: int = Field(default=32, gt=0)
    """Validation rows per forward pass."""
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
    """Cosine of each site's output with its quantized values."""

    study: Literal["site_cosine"] = "site_cosine"
    bits: Width = 6
    """Bits of the activation."""

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0


class GammaCosineStep(TextStudy):
    """How much better a norm's output can be quantized when γ is migrated."""

    study: Literal["gamma_cosine"] = "gamma_cosine"
    bits: Width = 6
    """Bits of the activation."""

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0


class LeaveOneKindStep(JudgedStudy):
    """Accuracy with one kind of site left in float, and with only that kind quantized."""

    study: Literal["leave_one_kind"] = "leave_one_kind"
    bits: Width = 6
    """Bits of weights, embeddings and activations."""

    @property
    def passes(self) -> tuple[int, int]:
        """For a model with every kind of site, such as BART; others have fewer, and the plan, which
        knows the model, counts them (`recipe/analyze_work.py`)."""
        return 1, 2 + 2 * (1 + len(SITE_KINDS))


class ClippingStep(JudgedStudy):
    """Accuracy and share of clipped tokens as the outputs of one kind of site are clipped."""

    study: Literal["clipping"] = "clipping"
    kinds: Distinct[SiteKind] = Field(default=("mha_norm", "ffn_act"), min_length=1)
    """Kinds of sites, each clipped separately."""
    shares: Distinct[Share] = Field(
        default=(1.0, 0.99, 0.98, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.05), min_length=1
    )
    """Share of the kind's tokens that the clipping value leaves unchanged."""
    limits: Distinct[float] | None = Field(default=None, min_length=1)
    """Clipping values to use instead of shares: a positive one only clips values above it, a
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
    """The study a table asks for.

    Example:
        >>> study({"run": "analyze"}), study({"study": "gamma"})
        ('outliers', 'gamma')
    """
    asked = table.get("study") if isinstance(table, dict) else getattr(table, "study", None)
    return "outliers" if asked is None else str(asked)


MOVED = ("methods", "seconds", "sizes")
"""Former studies that are now scripts in benchmarks/, each under its own name."""


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
