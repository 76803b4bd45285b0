"""Runs a method in memory: transform and calibration, then weights, ranges and refinement.

Used by the step `quantize`, which writes the result, and by the studies of `analyze` and the
benchmarks, so that they examine exactly the models that are shipped.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from attar.models.load import LoadedModel
from attar.models.simulated.qparams import Bits
from attar.models.structure.site_kinds import SCORE_KINDS
from attar.models.structure.sites import sites_of
from attar.quantization.calibration.calibrate import Batch, calibrate
from attar.quantization.config import QuantizeSettings
from attar.quantization.method import BitPlan, ChosenRanges, Problem, Solution
from attar.quantization.methods import method_of
from attar.quantization.transforms.rules import TRANSFORMS
from attar.quantization.weights.nearest import QuantizedWeights, put_on_grid_
from attar.quantization.weights.rules import WEIGHT_RULES
from attar.step import StepContext


def prepare_(
    config: QuantizeSettings, loaded: LoadedModel, batches: Sequence[Batch], context: StepContext
) -> tuple[Problem, dict[str, Any]]:
    """Apply the method's transform to `loaded.model` in place, and calibrate it.

    Returns: the problem with float weights, and details of the transform, as plain data.
    Raises:
        ModelError: the certificate of the transform fails, or an activation is not finite.
    """
    model, rule = loaded.model, method_of(config).transform_of(config)
    moved = TRANSFORMS[rule](model, batches, config, context)
    calibration = calibrate(model, sites_of(model), batches, context)
    bits = Bits(
        weight=config.weight_bits,
        embedding=config.embedding_bits or config.weight_bits,
        activation=config.activation_bits,
    )
    symmetric = SCORE_KINDS if config.query_key_grids == "symmetric" else ()
    problem = Problem(
        *(config, context, loaded.task, BitPlan(bits, symmetric=symmetric), model),
        on_grid=model,
        calibration=calibration,
        folder=loaded.folder,
    )
    return problem, {"rule": rule, **moved}


def solve(problem: Problem) -> tuple[Problem, Solution]:
    """Quantize weights, choose ranges, and refine.

    Returns: the problem with quantized weights, and its solution.
    """
    config, plan, model = problem.config, problem.plan, problem.model
    method, batches = method_of(config), problem.calibration.batches
    rounder = WEIGHT_RULES[method.weights_of(config)](model, batches, problem.context)
    weights = rounder.quantize(
        model, plan.weight, left_float=plan.float_tensors, full_range=method.full_range
    )
    problem = replace(problem, on_grid=simulated(model, weights))
    # a static embedding table has no activations
    chosen = method.ranges(problem) if sites_of(model) else ChosenRanges({})
    solution = Solution(problem.grids(chosen.ranges), weights, chosen.details)
    if method.refine is not None and config.refine:
        solution = method.refine.learn(problem, solution)
    return problem, solution


def simulated(model: PreTrainedModel, weights: QuantizedWeights) -> PreTrainedModel:
    """Copy `model` and set the parameters from `weights`."""
    copied = copy.deepcopy(model)
    put_on_grid_(copied, weights)
    return copied
