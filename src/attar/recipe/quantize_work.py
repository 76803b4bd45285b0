"""What a quantize step will do, in forward passes over its calibration texts.

The problem: one method reads the texts three times, another a hundred times, a third trains for
epochs. The idea: a method is a sum of parts, and each part has a known number of passes:

    calibration and what was lost    3
    + transform  + weight rule  + ranges  + what is learned: 3 · epochs  + sensitivities of a budget

A backward pass counts as two forward ones. Ranges are searched with candidates that are given up
early, so their share below is what was counted on small models (`tests/recipe` counts again), not
an upper bound. Left out: work that is no pass, such as the Hessians of `gptq`.
"""

from __future__ import annotations

from torch import nn

from attar.quantization.config import (
    AutoStep,
    Clipping,
    OmseStep,
    PercentileStep,
    QatStep,
    QuantizeSettings,
    StepSizeStep,
)
from attar.quantization.methods import METHODS
from attar.quantization.precision.sensitivity import EXAMPLES
from attar.quantization.ranges.percentile import SHARES
from attar.quantization.ranges.token_wise_clipping import num_candidates
from attar.quantization.solve import name_of

ALWAYS = 3
"""Calibration; the loss at each site; the loss at the end."""
MOVED = 2
"""A transform's: what can be transformed, and the certificate."""
GPTQ = 1
TRIED_SHARE = 0.6
"""Of the candidates for α as passes: a bad one is given up before its end."""
PER_KIND = 45
"""α of each kind by itself."""
AUTO_RANGES = 40
OMSE_ON_VALUES = 4
"""One pass; its search reads each value as long as three more take."""
LEARNED = 3
"""An epoch: forward and backward."""
TEACHER = 1
SKIPPED_SHARE = 0.5
"""Of a pass for a sensitivity: blocks in front of the tensor are not computed again."""
MEASURED_PLANS = 9


def text_passes(step: QuantizeSettings, model: nn.Module) -> float:
    """Passes over the calibration texts, training on other data left out.

    Args:
        model: of the step's architecture; weights are not read.
    """
    method = METHODS[name_of(step)]
    passes = ALWAYS + range_passes(step)
    passes += MOVED * (method.transform_of(step) != "none")
    passes += GPTQ * (method.weights_of(step) == "gptq")
    if isinstance(step, Clipping | StepSizeStep) and step.refine:
        passes += LEARNED * step.epochs
    return passes + _budget_passes(step, model)


def range_passes(step: QuantizeSettings) -> float:
    """Passes that the search of ranges takes."""
    coarse = TRIED_SHARE * num_candidates(step.activation_bits)
    if isinstance(step, PercentileStep):
        return len(SHARES) if step.percentile is None else 0
    if isinstance(step, OmseStep):
        return OMSE_ON_VALUES if step.on == "values" else 0
    if isinstance(step, StepSizeStep):
        return OMSE_ON_VALUES if step.start == "omse" else 0
    if isinstance(step, Clipping):
        tried = coarse if step.candidates is None else TRIED_SHARE * step.candidates
        return tried + PER_KIND * (step.alpha == "per_kind")
    if isinstance(step, AutoStep):
        return AUTO_RANGES
    if isinstance(step, QatStep):
        searched = {"token_wise_clipping": coarse, "omse": OMSE_ON_VALUES, "auto": AUTO_RANGES}
        return searched.get(step.start, 0)
    return 0


def training_passes(step: QuantizeSettings) -> float:
    """Passes over the training rows; 0 for a method that does not train."""
    if not isinstance(step, QatStep) or not step.refine:
        return 0
    return step.epochs * (LEARNED + TEACHER * step.distil)


def mean_weight_bits(step: QuantizeSettings, model: nn.Module) -> float:
    """Bits of a parameter on average, as far as the recipe says."""
    asked = None if step.budget is None else step.budget.average_bits
    linear = step.weight_bits if asked is None else asked
    embedding = linear if step.embedding_bits is None else step.embedding_bits
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    share = tables / sum(parameter.numel() for parameter in model.parameters())
    return share * embedding + (1 - share) * linear


def _budget_passes(step: QuantizeSettings, model: nn.Module) -> float:
    """Every tensor at every width on a part of the texts, and the plans that are carried out."""
    if step.budget is None:
        return 0
    examples = step.calibration.examples
    part = min(1.0, EXAMPLES / examples)
    kinds = (nn.Linear, nn.Embedding)
    tensors = sum(isinstance(module, kinds) for module in model.modules())
    widths = sorted(step.budget.widths)
    if step.budget.max_latency_ms is not None:  # weights and sites at one width
        return part * (SKIPPED_SHARE * 2 * tensors + MEASURED_PLANS * (1 + range_passes(step)))
    alone = SKIPPED_SHARE * tensors * len(widths)
    searches = float(MEASURED_PLANS)
    if widths[0] <= step.activation_bits < widths[-1]:  # sites share bits out too
        alone *= 2
        searches += len(widths)
    return part * (alone + MEASURED_PLANS + searches * range_passes(step))
