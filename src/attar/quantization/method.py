"""A quantization method is a preset of four independent choices, each a row of a table.

    float model ─ transform ─► migrated model ─ weights ─► on grid ─ ranges ─► grids ─ refine ─► out

Each stage is a function of the current `Problem`. A range finder returns a range for each site, a
refinement returns an improved `Solution`. Stages do not know which others run before or after them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from attar.models.simulated.qparams import Bits, SiteQParams
from attar.models.structure.sites import Site
from attar.quantization.calibration.calibrate import (
    Calibration,
    OutputError,
    Ranges,
    grids_of,
)
from attar.quantization.config import QuantizeSettings, TransformRule, WeightRule
from attar.quantization.weights.nearest import QuantizedWeights
from attar.step import StepContext
from attar.tasks.task import Task


@dataclass(frozen=True)
class BitPlan:
    """Bit width of each tensor: `bits` by default, with exceptions by name."""

    bits: Bits
    of_sites: Mapping[str, int] = field(default_factory=dict)
    """`Site.name` → bits."""
    of_weights: Mapping[str, int] = field(default_factory=dict)
    """Parameter name → bits."""
    float_tensors: frozenset[str] = frozenset()
    """Names of sites and weights that are not quantized."""
    symmetric: tuple[str, ...] = ()
    """Kinds of sites whose grids are symmetric."""

    def site(self, site: Site) -> int:
        return self.of_sites.get(site.name, self.bits.activation)

    def weight(self, fqn: str, kind: str) -> int:
        usual = self.bits.embedding if kind == "embedding" else self.bits.weight
        return self.of_weights.get(fqn, usual)


@dataclass(frozen=True)
class Problem:
    """The input of a stage."""

    config: Any
    """The step's settings: a member of the union `QuantizeStep`."""
    context: StepContext
    task: Task | None
    plan: BitPlan
    model: PreTrainedModel
    """The float model after the transform, with `attar_eager` attention. Stages must not change
    it."""
    on_grid: PreTrainedModel
    """The same model with quantized weights."""
    calibration: Calibration
    """Texts, statistics and float outputs of `model`."""
    folder: Path = Path()
    """Folder of the float model's tokenizer."""

    def grids(self, ranges: Ranges) -> list[SiteQParams]:
        """The grid of every range at the bit width of its site; sites that stay float are left
        out."""
        kept = {
            site: ends for site, ends in ranges.items() if site.name not in self.plan.float_tensors
        }
        return grids_of(kept, self.plan.site, self.plan.symmetric)

    def output_error(self, ranges: Ranges, loss: str = "mse") -> float:
        """Output error with quantized weights and activations quantized to these ranges."""
        return self.calibration.output_error(self.on_grid, self.grids(ranges), loss)

    def output_error_up_to(self, limit: float, ranges: Ranges, loss: str = "mse") -> OutputError:
        """Like `output_error`, but stop as soon as the error is known to exceed `limit`."""
        calibration = self.calibration
        return calibration.output_error_up_to(limit, self.on_grid, self.grids(ranges), loss)


@dataclass(frozen=True)
class ChosenRanges:
    """The result of a range finder."""

    ranges: Ranges
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain data for the step's metrics: the candidates, the chosen one, and their errors."""


@dataclass(frozen=True)
class Solution:
    """A quantized model: activation grids and integer weights."""

    grids: Sequence[SiteQParams]
    weights: QuantizedWeights
    """All parameters: integers, and those that stay float (biases, norms)."""
    details: Mapping[str, Any] = field(default_factory=dict)


RangeFinder = Callable[[Problem], ChosenRanges]


@dataclass(frozen=True)
class Passes:
    """Number of forward passes; a backward pass counts as two."""

    texts: float = 0
    """Over the calibration texts."""
    training: float = 0
    """Over the training rows."""


def no_search(config: Any) -> float:
    """Passes of a range finder that uses only the calibration statistics."""
    return 0


@dataclass(frozen=True)
class Refinement:
    """The gradient-based stage of a method."""

    learn: Callable[[Problem, Solution], Solution]
    passes: Callable[[Any], Passes]
    """Step's settings → passes it takes, for `attar plan`."""


@dataclass(frozen=True)
class Method:
    ranges: RangeFinder
    range_passes: Callable[[Any], float]
    """Step's settings → forward passes over the calibration texts of the range search, for
    `attar plan`."""
    transform: TransformRule = "none"
    weights: WeightRule = "nearest"
    refine: Refinement | None = None
    full_range: bool = False
    """Weights also use the integer −2^(bits−1): four levels at 2 bits instead of three."""

    def transform_of(self, config: QuantizeSettings) -> TransformRule:
        return config.transform or self.transform

    def weights_of(self, config: QuantizeSettings) -> WeightRule:
        return config.weights or self.weights
