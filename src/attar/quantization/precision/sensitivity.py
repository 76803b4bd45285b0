"""How much the model's answers suffer when one tensor alone is quantized.

The problem: a plan of bits needs to know what each bit buys, for each tensor. The idea: ask the
model itself, one tensor at a time, everything else in float:

    sensitivity(tensor, bits) = error of the final outputs when only this tensor has `bits` bits

as `Calibration.output_error` measures it (mean squared difference of the logits, or KL of the class
distributions where the method's own loss is KL). A weight is rounded by the method's weight rule, a
site gets the range that the method finds for that width. No label is needed.

One forward pass for each tensor and width: on `EXAMPLES` texts only. Rounding noise may make a
wider grid look worse by chance; then the narrower one is charged as much (the smallest
non-increasing majorant), so that no width is taken to be better than one above it.

Left out: second derivatives (HAWQ), which ask the same question around a point the model leaves at
3 bits, and the joint effect of two tensors: that errors add up is the assumption of all of this,
and `pareto` measures how well it holds. Nor is it seen that summed tables make each other's errors
good: alone, a table is charged for all of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.simulated.quantized import Quantizer
from attar.models.structure.ports import inserted
from attar.models.structure.sites import Site
from attar.numerics.affine import QParams, dequantize
from attar.quantization.calibration.calibrate import Calibration, calibrate
from attar.quantization.method import Method, Problem
from attar.quantization.precision.cost import Weight
from attar.quantization.precision.prefix import Prefix
from attar.quantization.weights.nearest import weight_grid
from attar.quantization.weights.rounder import Rounder
from attar.quantization.weights.rules import WEIGHT_RULES

EXAMPLES = 64
"""Texts a sensitivity is measured on: 300 passes of a six-block model over them take minutes on two
cores, over all 256 a quarter of an hour, and the order of tensors hardly moves."""

Sensitivities = Mapping[str, Mapping[int, float]]
"""Tensor's name → bits → loss increase."""


@dataclass(frozen=True)
class Probe:
    """The float model, a few texts, and the way the step's method rounds."""

    problem: Problem
    """Its calibration is the subset's; its weights are float."""
    method: Method
    rounder: Rounder
    prefix: Prefix
    loss: str

    @classmethod
    def of(cls, problem: Problem, method: Method) -> Probe:
        """The same problem on a subset of its texts, with float weights."""
        whole = problem.calibration
        sites = list(whole.statistics)
        subset = calibrate(problem.model, sites, every_nth(whole, EXAMPLES), problem.context)
        rounder = WEIGHT_RULES[method.weights_of(problem.config)](
            problem.model, subset.batches, problem.context
        )
        alone = replace(problem, on_grid=problem.model, calibration=subset)
        prefix = Prefix(problem.model, subset.batches)
        return cls(alone, method, rounder, prefix, getattr(problem.config, "loss", "mse"))

    @property
    def model(self) -> PreTrainedModel:
        return self.problem.model

    def error_of(self, logits: Iterable[Tensor]) -> float:
        """Output error of these logits on the subset."""
        return self.problem.calibration.error_of(logits, self.loss)


def every_nth(calibration: Calibration, examples: int) -> list[dict[str, Tensor]]:
    """About `examples` of the texts, spread over all batches and so over all lengths."""
    step = max(1, calibration.num_examples // examples)
    thinned = [
        {name: tensor[::step] for name, tensor in batch.items()} for batch in calibration.batches
    ]
    return [batch for batch in thinned if len(batch["input_ids"])]


def weight_sensitivities(
    probe: Probe, weights: Sequence[Weight], widths: Sequence[int]
) -> Sensitivities:
    """Of every weight alone at every width."""
    parameters = dict(probe.model.named_parameters())

    def error(name: str, bits: int) -> float:
        parameter = parameters[name]
        weight = parameter.detach().to(torch.float32)
        grid = weight_grid(name, weight, bits)
        integers, scale = probe.rounder.make_integers(name, weight, grid)
        stored = QParams(scale, grid.zero_point, grid.quant_min, grid.quant_max)
        user = probe.prefix.first_user_of(parameter)
        with _in_place_of(parameter, dequantize(integers, stored, axis=0)):
            return probe.error_of(probe.prefix.logits(user))

    names = [weight.fqn for weight in weights]
    return _measured(probe, "sensitivity of weights", names, widths, error)


def site_sensitivities(probe: Probe, sites: Sequence[Site], widths: Sequence[int]) -> Sensitivities:
    """Of every site alone at every width, with the range the method finds at that width."""
    found = {bits: _quantizers(probe, bits) for bits in widths}
    by_name = {site.name: site for site in sites}

    def error(name: str, bits: int) -> float:
        site = by_name[name]
        with inserted(probe.model, {site: found[bits][name]}):
            return probe.error_of(probe.prefix.logits(probe.model.get_submodule(site.fqn)))

    return _measured(probe, "sensitivity of sites", list(by_name), widths, error)


def _quantizers(probe: Probe, bits: int) -> dict[str, Quantizer]:
    """The quantizer of every site when all have the same width."""
    plan = probe.problem.plan
    uniform = replace(plan, bits=plan.bits.model_copy(update={"activation": bits}), of_sites={})
    problem = replace(probe.problem, plan=uniform)
    ranges = probe.method.ranges(problem).ranges
    return {grid.name: Quantizer.of(grid) for grid in problem.grids(ranges)}


def _measured(
    probe: Probe,
    title: str,
    names: Sequence[str],
    widths: Sequence[int],
    error: Callable[[str, int], float],
) -> Sensitivities:
    context = probe.problem.context
    measured: dict[str, dict[int, float]] = {}
    with context.progress.task(title, len(names) * len(widths)) as task:
        for name in names:
            raw: dict[int, float] = {}
            for bits in sorted(widths):
                context.stop_if_asked(f"{title} ({len(measured)} of {len(names)})")
                raw[bits] = error(name, bits)
                task.advance()
            measured[name] = non_increasing(raw)
    return measured


def non_increasing(raw: Mapping[int, float]) -> dict[int, float]:
    """The smallest function above `raw` that never rises with the width.

    Example:
        >>> non_increasing({2: 5.0, 3: 1.0, 4: 2.0})
        {2: 5.0, 3: 2.0, 4: 2.0}
    """
    repaired: dict[int, float] = {}
    highest = -math.inf
    for bits in sorted(raw, reverse=True):
        highest = max(highest, raw[bits])
        repaired[bits] = highest
    return dict(sorted(repaired.items()))


@contextmanager
def _in_place_of(parameter: Tensor, value: Tensor) -> Iterator[None]:
    """A parameter holds other values for a while."""
    before = parameter.data
    parameter.data = value
    try:
        yield
    finally:
        parameter.data = before
