"""What a stage of quantization is given: a tiny model, calibrated, its weights on their grids."""

from __future__ import annotations

import copy
from pathlib import Path

import tiny
from attar.models.simulated.qparams import Bits
from attar.models.structure.ports import use_attar_attention_
from attar.models.structure.sites import sites_of
from attar.progress import Progress
from attar.quantization.calibration.calibrate import calibrate
from attar.quantization.config import Calibration as CalibrationSettings
from attar.quantization.config import QuantizeSettings
from attar.quantization.method import BitPlan, Problem, Solution
from attar.quantization.ranges.extremes import minmax
from attar.quantization.weights.nearest import put_on_grid_, quantize_weights
from attar.step import StepContext

TEXTS = CalibrationSettings(data="texts")


def problem_of(
    config: QuantizeSettings,
    *,
    batches: int = 8,
    activation: int = 4,
    seed: int = 0,
    stop=None,
    **model_changes,
) -> tuple[Problem, Solution]:
    """A tiny BERT with 8-bit weights whose ranges are min-max, and texts of 4 a batch."""
    model = tiny.tiny_model("bert", seed=seed, **model_changes)
    use_attar_attention_(model)
    here = Path()
    context = StepContext("q", here, here, {}, {}, here, Progress(quiet=True), seed=seed)
    texts = [tiny.tiny_batch(batch=4, seed=100 * seed + i) for i in range(batches)]
    calibration = calibrate(model, sites_of(model), texts, context)
    plan = BitPlan(Bits(weight=8, embedding=8, activation=activation))
    weights = quantize_weights(model, plan.weight)
    on_grid = copy.deepcopy(model)
    put_on_grid_(on_grid, weights)
    if stop is not None:
        context = StepContext(
            "q", here, here, {}, {}, here, Progress(quiet=True), seed=seed, should_stop=stop
        )
    problem = Problem(config, context, None, plan, model, on_grid, calibration)
    return problem, Solution(problem.grids(minmax(problem).ranges), weights, {"alpha": 0.9})
