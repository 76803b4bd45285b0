"""The path of every method, in memory: transform and calibrate, then weights, ranges, refinement.

The step `quantize` writes what comes out; the studies of `analyze` and the benchmarks only look at
it. All of them go this way, so that what is studied is what is shipped.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from attar.models.load import LoadedModel
from attar.models.simulated.qparams import Bits
from attar.models.structure.sites import sites_of
from attar.quantization.calibration.calibrate import Batch, Calibration, calibrate
from attar.quantization.config import QuantizeSettings
from attar.quantization.method import BitPlan, Method, Problem, Solution
from attar.quantization.methods import METHODS
from attar.quantization.transforms.rules import TRANSFORMS
from attar.quantization.weights.nearest import QuantizedWeights, put_on_grid_
from attar.quantization.weights.rules import WEIGHT_RULES
from attar.step import StepContext


@dataclass(frozen=True)
class Prepared:
    """A float model whose transform is done and whose activations were seen."""

    config: QuantizeSettings
    method: Method
    loaded: LoadedModel
    moved: Mapping[str, Any]
    """What the transform did, as plain data."""
    transform_seconds: float
    """Looking at what can be transformed, choosing, and proving the result equivalent."""
    calibration: Calibration
    plan: BitPlan
    context: StepContext


def prepare_(
    config: QuantizeSettings, loaded: LoadedModel, batches: Sequence[Batch], context: StepContext
) -> Prepared:
    """Transform `loaded.model` in place as the method wants it, and calibrate it.

    Raises:
        ModelError: the certificate of the transform fails, or an activation is not finite.
    """
    method = METHODS[name_of(config)]
    rule = method.transform_of(config)
    started = time.perf_counter()
    moved = TRANSFORMS[rule](loaded.model, batches, config, context)
    transform_seconds = time.perf_counter() - started
    calibration = calibrate(loaded.model, sites_of(loaded.model), batches, context)
    bits = Bits(
        weight=config.weight_bits,
        embedding=config.embedding_bits or config.weight_bits,
        activation=config.activation_bits,
    )
    told = {"rule": rule, **moved}
    plan = BitPlan(bits)
    return Prepared(config, method, loaded, told, transform_seconds, calibration, plan, context)


def problem_of(prepared: Prepared, weights: QuantizedWeights) -> Problem:
    """What a range finder is given, with these weights on their grids."""
    model = prepared.loaded.model
    return Problem(
        config=prepared.config,
        context=prepared.context,
        task=prepared.loaded.task,
        plan=prepared.plan,
        model=model,
        on_grid=simulated(model, weights),
        calibration=prepared.calibration,
        folder=prepared.loaded.folder,
    )


def solve(prepared: Prepared) -> tuple[Problem, Solution]:
    """Weights, ranges and refinement."""
    config, method, plan = prepared.config, prepared.method, prepared.plan
    model, batches = prepared.loaded.model, prepared.calibration.batches
    rounder = WEIGHT_RULES[method.weights_of(config)](model, batches, prepared.context)
    weights = rounder.quantize(
        model, plan.weight, left_float=plan.float_tensors, full_range=method.full_range
    )
    problem = problem_of(prepared, weights)
    chosen = method.ranges(problem)
    solution = Solution(problem.grids(chosen.ranges), weights, chosen.details)
    if method.refine is not None and config.refine:
        solution = method.refine.learn(problem, solution)
    return problem, solution


def simulated(model: PreTrainedModel, weights: QuantizedWeights) -> PreTrainedModel:
    """A copy of `model` with the parameters of `weights`."""
    copied = copy.deepcopy(model)
    put_on_grid_(copied, weights)
    return copied


def name_of(config: QuantizeSettings) -> str:
    """The method's name, which every member of the union has."""
    return getattr(config, "method")  # noqa: B009
