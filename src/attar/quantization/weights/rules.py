"""The table of weight rules, which round weights to integers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.simulated.qparams import Bits
from attar.numerics.affine import QParams
from attar.quantization.calibration.calibrate import Batch
from attar.quantization.config import WeightRule
from attar.quantization.weights.clipped import clipped, clipped_scale
from attar.quantization.weights.gptq import gptq, seen_inputs
from attar.quantization.weights.nearest import (
    MakeIntegers,
    QuantizedWeights,
    nearest,
    quantize_weights,
)
from attar.quantization.weights.summed_tables import TableReads, errors_made_good
from attar.step import StepContext


@dataclass(frozen=True)
class Rounder:
    """A weight rule with the data that it has collected from a model."""

    make_integers: MakeIntegers
    """Rounds a single weight."""
    reads: TableReads | None = None
    """Rows read from embedding tables, for compensating errors between tables; None: tables are
    rounded independently."""

    def quantize(
        self,
        model: PreTrainedModel,
        bits: Bits | Callable[[str, str], int],
        *,
        left_float: Collection[str] = (),
        full_range: bool = False,
    ) -> QuantizedWeights:
        """Quantize all weights of `model` (see `quantize_weights`), with error compensation between
        embedding tables."""
        found = quantize_weights(
            model, bits, self.make_integers, left_float=left_float, full_range=full_range
        )
        return found if self.reads is None else errors_made_good(model, found, self.reads)


RuleMaker = Callable[[PreTrainedModel, Sequence[Batch], StepContext], Rounder]
"""Makes the rule for a model; it may first run the float model on the calibration texts."""


def gptq_rule(model: PreTrainedModel, batches: Sequence[Batch], context: StepContext) -> Rounder:
    """Collect the inputs of every Linear in one pass of the float `model`; returns the rule."""
    moments, reads = seen_inputs(model, batches, context)

    def make_integers(name: str, weight: Tensor, grid: QParams) -> tuple[Tensor, Tensor]:
        moment = moments.get(name)
        if moment is None:
            return clipped(name, weight, grid)
        context.stop_if_asked("rounding weights")
        scale = clipped_scale(weight, grid, moment.diagonal().to(torch.float32))
        chosen = replace(grid, scale=scale)
        return gptq(weight, chosen, moment), scale

    return Rounder(make_integers, reads)


def _without_data(rule: MakeIntegers) -> RuleMaker:
    return lambda model, batches, context: Rounder(rule)


WEIGHT_RULES: Mapping[WeightRule, RuleMaker] = {
    "nearest": _without_data(nearest),
    "clipped": _without_data(clipped),
    "gptq": gptq_rule,
}
WEIGHT_PASSES: Mapping[WeightRule, int] = {"nearest": 0, "clipped": 0, "gptq": 1}
"""Forward passes over the calibration texts that each rule takes, for `attar plan`."""
