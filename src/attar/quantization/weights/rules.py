"""The table of weight rules, which round weights to integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from attar.quantization.config import WeightRule
from attar.quantization.weights.clipped import clipped
from attar.quantization.weights.gptq import gptq_rule
from attar.quantization.weights.nearest import MakeIntegers, nearest
from attar.quantization.weights.rounder import Rounder
from attar.step import StepContext

Batch = Mapping[str, Tensor]
RuleMaker = Callable[[PreTrainedModel, Sequence[Batch], StepContext], Rounder]
"""Makes the rule for a model; it may first run the float model on the calibration texts."""


def _without_data(rule: MakeIntegers) -> RuleMaker:
    return lambda model, batches, context: Rounder(rule)


WEIGHT_RULES: Mapping[WeightRule, RuleMaker] = {
    "nearest": _without_data(nearest),
    "clipped": _without_data(clipped),
    "gptq": gptq_rule,
}
WEIGHT_PASSES: Mapping[WeightRule, int] = {"nearest": 0, "clipped": 0, "gptq": 1}
"""Forward passes over the calibration texts that each rule takes, for `attar plan`."""
