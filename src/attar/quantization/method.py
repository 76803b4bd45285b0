"""What a quantization method is: a preset of four independent choices, each a row of a table.

    float model ─ transform ─► migrated model ─ weights ─► on grid ─ ranges ─► grids ─ refine ─► out

A stage is a function of the `Problem` so far. Range finders answer with a range for each site,
refinements with a better `Solution`; neither knows what came before it or what comes after.
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
    """How many bits each tensor gets: the same everywhere, but for what is named."""

    bits: Bits
    of_sites: Mapping[str, int] = field(default_factory=dict)
    """`Site.name` → bits."""
    of_weights: Mapping[str, int] = field(default_factory=dict)
    """Parameter name → bits."""
    float_tensors: frozenset[str] = frozenset()
    """Sites and weights, by the same names, that are not quantized at all."""
    symmetric: tuple[str, ...] = ()
    """Kinds of sites whose grids are symmetric."""

    def site(self, site: Site) -> int:
        return self.of_sites.get(site.name, self.bits.activation)

    def weight(self, fqn: str, kind: str) -> int:
        usual = self.bits.embedding if kind == "embedding" else self.bits.weight
        return self.of_weights.get(fqn, usual)


@dataclass(frozen=True)
class Problem:
    """What a stage may know."""

    config: Any
    """The step's settings: a member of the union `QuantizeStep`."""
    context: StepContext
    task: Task | None
    plan: BitPlan
    model: PreTrainedModel
    """Float, after the transform, with `attar_eager` attention; a stage leaves it as it is."""
    on_grid: PreTrainedModel
    """The same with its weights on their grids."""
    calibration: Calibration
    """Of `model`: statistics, texts, and the float outputs."""
    folder: Path = Path()
    """Where the float model's tokenizer is."""

    def grids(self, ranges: Ranges) -> list[SiteQParams]:
        """The grid of every range, each site at its own bits; none where it stays float."""
        kept = {
            site: ends for site, ends in ranges.items() if site.name not in self.plan.float_tensors
        }
        return grids_of(kept, self.plan.site, self.plan.symmetric)

    def output_error(self, ranges: Ranges, loss: str = "mse") -> float:
        """How far the outputs are from float with weights and these ranges quantized."""
        return self.calibration.output_error(self.on_grid, self.grids(ranges), loss)

    def output_error_up_to(self, limit: float, ranges: Ranges, loss: str = "mse") -> OutputError:
        """The same, given up as soon as it is known to be larger than `limit`."""
        calibration = self.calibration
        return calibration.output_error_up_to(limit, self.on_grid, self.grids(ranges), loss)


@dataclass(frozen=True)
class ChosenRanges:
    """A range finder's answer."""

    ranges: Ranges
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain data for the step's metrics: what was searched, what won and by how much."""


@dataclass(frozen=True)
class Solution:
    """Everything that is quantized, as integers and grids."""

    grids: Sequence[SiteQParams]
    weights: QuantizedWeights
    """All parameters: integers, and the floats that stay (biases, norms)."""
    details: Mapping[str, Any] = field(default_factory=dict)


RangeFinder = Callable[[Problem], ChosenRanges]


@dataclass(frozen=True)
class Passes:
    """Forward passes; a backward pass counts as two."""

    texts: float = 0
    """Over the calibration texts."""
    training: float = 0
    """Over the training rows."""


def no_search(config: Any) -> float:
    """Passes of ranges that follow from what calibration saw."""
    return 0


@dataclass(frozen=True)
class Refinement:
    """What a method learns by gradient."""

    learn: Callable[[Problem, Solution], Solution]
    passes: Callable[[Any], Passes]
    """Step's settings → what it takes, for the plan."""


@dataclass(frozen=True)
class Method:
    ranges: RangeFinder
    range_passes: Callable[[Any], float]
    """Step's settings → forward passes over the calibration texts that the search of ranges takes,
    for the plan."""
    transform: TransformRule = "none"
    weights: WeightRule = "nearest"
    refine: Refinement | None = None
    full_range: bool = False
    """Weights use the integer −2^(bits−1) too: four levels at 2 bits, not three."""

    def transform_of(self, config: QuantizeSettings) -> TransformRule:
        return config.transform or self.transform

    def weights_of(self, config: QuantizeSettings) -> WeightRule:
        return config.weights or self.weights
