"""Settings of `run = "quantize"`. Imports no torch.

A method is a preset of four independent choices. A recipe can override all but the ranges:

    transform   equivalent transform of the float model, before rounding  (transforms/)
    weights     how weights are rounded to integers                       (weights/)
    ranges      how the range of each activation is chosen                (set by the method)
    refine      refinement by gradient afterwards                         (learning/)
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypedDict

from pydantic import Field, model_validator

from attar.config import Config
from attar.tasks.table import Kind

TransformRule = Literal["none", "gamma", "smoothquant", "os_plus", "auto"]
WeightRule = Literal["nearest", "clipped", "gptq"]
BATCH_SIZE = 32
"""Default number of calibration texts per batch, as in the paper; 4 for a generative model, also as
in the paper."""


class Texts(Config):
    """Training texts to run through the model."""

    examples: int = Field(default=256, gt=0)
    """Number of texts."""
    batch_size: int | None = Field(default=None, gt=0)
    """Texts per batch; None: 32, or 4 for a generative model."""
    seed: int | None = None
    """Seed of the sample of texts; None: the recipe's."""


class Calibration(Texts):
    """Calibration data: the texts that activation ranges are computed from."""

    data: str
    """Name of a `[data.<name>]` table; its train split is used."""


class Budget(Config):
    """Limit of a mixed-precision model. Set exactly one of the three limits."""

    average_bits: float | None = Field(default=None, ge=2, le=8)
    """Mean bit width of the weights."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """Latency of one text of 128 tokens in the deployed runtime on this CPU."""
    max_accuracy_drop: float | None = Field(default=None, gt=0, lt=1)
    """Drop of the data's first metric, 0..1, measured on training rows that are not used for
    calibration."""
    widths: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    """Bit widths to choose from."""

    @model_validator(mode="after")
    def _widths_are_read(self) -> Budget:
        usual = type(self).model_fields["widths"].default
        if self.max_latency_ms is not None and self.widths != usual:
            raise ValueError(
                f"widths are {list(self.widths)}, but max_latency_ms only chooses between int8 and "
                "float, because fewer bits are not faster; remove widths, or "
                "set average_bits or max_accuracy_drop"
            )
        return self

    @model_validator(mode="after")
    def _has_one_limit(self) -> Budget:
        limits = (self.average_bits, self.max_latency_ms, self.max_accuracy_drop)
        given = sum(limit is not None for limit in limits)
        if given != 1:
            raise ValueError(
                f"a budget has exactly one of average_bits, max_latency_ms and max_accuracy_drop, "
                f"got {given}"
            )
        if not self.widths or any(not 2 <= width <= 8 for width in self.widths):
            raise ValueError(f"widths are 2 to 8 bits, got {list(self.widths)}")
        if self.average_bits is not None and self.average_bits < min(self.widths):
            raise ValueError(
                f"average_bits is {self.average_bits:g}, and the smallest of the widths "
                f"{sorted(self.widths)} is {min(self.widths)}; allow more bits or a smaller width"
            )
        return self


class QuantizeMetrics(TypedDict, total=False):
    """Metrics that the step can write to its result; gates can use only these."""

    method: str
    weight_bits: float
    embedding_bits: float
    activation_bits: float
    num_sites: int
    transform: dict[str, Any]
    weight_rule: str
    momentum: float
    percentile: float
    candidates: list[dict[str, float]]
    """Of percentile."""
    omse: dict[str, Any]
    clipping: dict[str, Any]
    """The coarse stage of token-wise clipping."""
    ranges: dict[str, Any]
    """Of auto."""
    start: dict[str, Any]
    """Initialization of learned step sizes."""
    fine: dict[str, Any]
    """Errors before and after the fine stage."""
    training: dict[str, Any]
    budget: dict[str, Any]
    calibration: dict[str, Any]
    sites: dict[str, dict[str, Any]]
    weights: dict[str, dict[str, Any]]
    mean_sqnr_db: float | None
    logits_sqnr_db: float | None
    size_mib: float


class QuantizeSettings(Config):
    """Quantize a fine-tuned model to 2 to 8 bits, with or without training."""

    learns: ClassVar[bool] = False
    """Whether the method has a refinement stage (`refine`)."""
    run: Literal["quantize"] = "quantize"
    model: str
    """A train step, or a folder or hub id of a fine-tuned model."""
    calibration: Calibration
    weight_bits: int = Field(default=8, ge=2, le=8)
    """Bit width of the weight matrices."""
    activation_bits: int = Field(default=8, ge=2, le=8)
    """Bit width of every activation that is an input of a matrix product."""
    embedding_bits: int | None = Field(default=None, ge=2, le=8)
    """Bit width of embedding tables; None: weight_bits."""
    transform: TransformRule | None = None
    """Equivalent transform before quantization; None: the method's default."""
    smoothquant_alpha: float = Field(default=0.5, ge=0, le=1)
    """Share of the quantization difficulty that SmoothQuant moves into the weights."""
    weights: WeightRule | None = None
    """How weights are rounded; None: the method's default."""
    query_key_grids: Literal["asymmetric", "symmetric"] = "asymmetric"
    """Grids of queries and keys. asymmetric: as published. symmetric: without zero points, as
    OpenVINO requires for attention scores in int8; faster, but two more tensors of the exported
    model are quantized. With a training method, only the step size of a symmetric grid is
    learned."""
    refine: bool = True
    """false: skip the refinement by gradient."""
    budget: Budget | None = None
    """Mixed precision: a bit width for each tensor, chosen by measurement; None: the same
    everywhere."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> QuantizeSettings:
        # compares values, because a written-out recipe contains all settings, defaults included
        usual = type(self).model_fields["smoothquant_alpha"].default
        is_read = (self.transform or getattr(self, "method", None)) == "smoothquant"
        if self.smoothquant_alpha != usual and not is_read:
            raise ValueError(
                "smoothquant_alpha is a setting of SmoothQuant; "
                'add transform = "smoothquant", or remove it'
            )
        # true is the default, so it is an error only if a recipe sets it explicitly, but not in a
        # written-out recipe with all settings
        said, every = self.model_fields_set, type(self).model_fields.keys()
        if self.refine and not self.learns and "refine" in said and not every <= said:
            raise ValueError(
                f"{getattr(self, 'method', 'this method')} has no refinement by gradient, so "
                "refine = true would be ignored; remove it"
            )
        return self

    def misfit(self, kind: Kind) -> tuple[str, str] | None:
        """The setting that does not fit a model of this task, and why; None: all fit."""
        if getattr(self, "loss", "mse") == "kl" and not kind.gives_distribution:
            return "loss", (
                f'model {self.model!r} is for {kind.name}, and loss = "kl" compares distributions '
                "over classes that exclude each other, which it does not predict; remove it, or "
                'set loss = "mse"'
            )
        if kind.embeds and not getattr(self, "distil", True):
            return "distil", (
                "an embedding model is always distilled from the float model; remove distil = false"
            )
        return None


class MinmaxStep(QuantizeSettings):
    """Range = mean over calibration batches of the batch minimum and maximum."""

    method: Literal["minmax"] = "minmax"


class EmaMinmaxStep(QuantizeSettings):
    """Range = moving average over calibration batches of the batch minimum and maximum."""

    method: Literal["ema_minmax"] = "ema_minmax"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Weight of the average so far."""


class PercentileStep(QuantizeSettings):
    """Range = a quantile of the values on each side, from a histogram."""

    method: Literal["percentile"] = "percentile"
    percentile: float | None = Field(default=None, gt=0.5, le=1)
    """Quantile, such as 0.9999; None: the best of 0.999, 0.9999, 0.99999."""
    choose_by: Literal["output_error", "validation"] = "output_error"
    """How the quantile is chosen: by the smallest output error on the calibration texts, or, as
    published, by the data's first metric on the labelled validation split. A score on the same
    split is then optimistic."""

    @model_validator(mode="after")
    def _something_is_chosen(self) -> PercentileStep:
        if self.percentile is not None and self.choose_by != "output_error":
            raise ValueError(
                f"percentile = {self.percentile:g} leaves nothing to choose by {self.choose_by}; "
                "remove one of the two"
            )
        return self


class OmseStep(QuantizeSettings):
    """Range = minimum squared error between the tensor and its quantized values."""

    method: Literal["omse"] = "omse"
    search: Literal["golden_section", "grid"] = "golden_section"
    """How the range is searched."""
    on: Literal["values", "histogram"] = "values"
    """values: search on all values of each batch, as published. histogram: search on their
    histogram, hundreds of times cheaper."""


class StepLearning(QuantizeSettings):
    """Settings of the methods that learn step sizes by gradient, with fixed weights."""

    learns = True
    learning_rate: float = Field(default=1e-5, gt=0)
    """Learning rate of the step sizes."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the calibration texts."""


class Clipping(StepLearning):
    """Settings of the methods with token-wise clipping (Outlier Suppression, Algorithm 1)."""

    candidates: int | None = Field(default=None, ge=1, le=100)
    """Number of values of α to try: 1, 0.99, 0.98 …; None: 10, 30 or 90 at 8, 6 or 4 bits, as
    published."""
    alpha: Literal["global", "per_kind"] = "global"
    """global: one α for all sites. per_kind: one α per kind of site, by coordinate search
    (ours)."""
    whole_curve: bool = False
    """Compute the full error of every candidate, to plot error against α. The chosen α is the
    same."""
    loss: Literal["mse", "kl"] = "mse"
    """Output error. mse: mean squared error of the logits. kl: KL divergence of the class
    distributions (ours)."""


class TokenWiseClippingStep(Clipping):
    """Coarse and fine stage of Outlier Suppression, without gamma migration."""

    method: Literal["token_wise_clipping"] = "token_wise_clipping"


class OutlierSuppressionStep(Clipping):
    """Outlier Suppression: gamma migration, then the coarse and the fine stage."""

    method: Literal["outlier_suppression"] = "outlier_suppression"


class StepSizeStep(StepLearning):
    """Ranges of minimum squared error, then step sizes learned by gradient."""

    method: Literal["step_size"] = "step_size"
    start: Literal["omse", "mean_3sigma"] = "omse"
    """Initial step sizes. omse: minimum squared error, as published. mean_3sigma: mean ± 3 standard
    deviations."""


class SmoothquantStep(QuantizeSettings):
    """SmoothQuant: scales moved into the weights, then minmax ranges."""

    method: Literal["smoothquant"] = "smoothquant"


class OsPlusStep(QuantizeSettings):
    """Outlier Suppression+: channel shifts and scales chosen by output error, then minmax
    ranges."""

    method: Literal["os_plus"] = "os_plus"


REMOVED_OF_AUTO = {"refine": False, "learning_rate": 3e-3, "epochs": 6}
"""Removed setting of auto's former gradient stage → its value when that stage was off."""


class AutoStep(QuantizeSettings):
    """Ours: transform, weight rounding and ranges are each chosen by measured error."""

    method: Literal["auto"] = "auto"
    refine: bool = False
    """auto has no refinement stage."""
    loss: Literal["mse", "kl"] = "mse"
    """Output error. mse: mean squared error of the logits. kl: KL divergence of the class
    distributions."""

    @model_validator(mode="before")
    @classmethod
    def _learning_was_removed(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        # Run folders of earlier versions contain these settings with their unused values.
        asked = [
            name for name, unused in REMOVED_OF_AUTO.items() if given.get(name, unused) != unused
        ]
        if asked:
            raise ValueError(
                f"{asked[0]} belongs to the gradient stage of auto (the reconstruction), which was "
                f"removed because it did not improve any metric; remove {', '.join(asked)}, or use "
                f'quantization-aware training with method = "lsq_plus", start = "auto"'
            )
        return {name: value for name, value in given.items() if name not in REMOVED_OF_AUTO}


class QatStep(QuantizeSettings):
    """Settings of quantization-aware training."""

    learns = True
    data: str | None = None
    """Training data; None: the calibration data."""
    start: Literal["token_wise_clipping", "minmax", "mean_3sigma", "omse", "auto"] = (
        "token_wise_clipping"
    )
    """Method that initializes the step sizes."""
    distil: bool = True
    """Also distil from the outputs of the float model."""
    quant_noise: float = Field(default=1.0, gt=0, le=1)
    """Share of each weight's values to quantize, sampled in every training pass; 1: all.
    Quant-Noise uses 0.5 for integers."""
    epochs: float = Field(default=3, gt=0)
    """Passes over the training data."""
    learning_rate: float = Field(default=3e-5, gt=0)
    """Learning rate of the weights."""
    batch_size: int = Field(default=32, gt=0)
    """Examples per optimizer step."""
    max_length: int | None = Field(default=None, ge=8)
    """Maximum number of tokens; None: the model's own."""

    @model_validator(mode="after")
    def _trains_what_it_says(self) -> QatStep:
        if not self.refine:
            raise ValueError(
                "refine = false switches off the training, which is all of this method; use "
                'method = "token_wise_clipping" or "auto"'
            )
        if self.weights == "gptq":
            raise ValueError(
                'training starts from the float weights, so the rounding of weights = "gptq" would '
                'be lost; use "nearest" or "clipped"'
            )
        return self


class LsqStep(QatStep):
    """LSQ: learned step sizes with fixed zero points."""

    method: Literal["lsq"] = "lsq"


class LsqPlusStep(QatStep):
    """LSQ+: learned step sizes and zero points."""

    method: Literal["lsq_plus"] = "lsq_plus"


class PactStep(QatStep):
    """PACT: learned clipping values; weights use the range of their values."""

    method: Literal["pact"] = "pact"


QuantizeStep = Annotated[
    MinmaxStep
    | EmaMinmaxStep
    | PercentileStep
    | OmseStep
    | TokenWiseClippingStep
    | OutlierSuppressionStep
    | StepSizeStep
    | SmoothquantStep
    | OsPlusStep
    | AutoStep
    | LsqStep
    | LsqPlusStep
    | PactStep,
    Field(discriminator="method"),
]
