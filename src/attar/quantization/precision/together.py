"""Evaluates a bit-width plan with all of its tensors quantized together.

Sensitivities are only approximately additive. So before a plan is chosen, the model is quantized
accordingly, as the step would do it (weights, then ranges, without refinement), and compared with
the float model: by output error on the calibration texts, or, for a limit on accuracy, by the
metric on labelled rows that are not used for calibration.

    drop = metric(float) − metric(quantized), both on the same rows

A metric over n rows has a resolution of 1/n, which must not be larger than the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from attar.data.load import data_of
from attar.errors import DataError
from attar.models.load import LoadedModel
from attar.models.simulated.qparams import SiteQParams
from attar.quantization.calibration.calibrate import choose_examples
from attar.quantization.config import BATCH_SIZE, QuantizeSettings
from attar.quantization.method import BitPlan
from attar.quantization.precision.tensor_errors import Probe
from attar.quantization.solve import simulated
from attar.scoring.judging import Judge
from attar.step import StepContext

ROWS = 512
"""Maximum number of held-out rows; with 512, accuracy has a resolution of 0.2 points."""


@dataclass(frozen=True)
class Together:
    """A model that is quantized according to a plan."""

    model: PreTrainedModel
    grids: Sequence[SiteQParams]
    output_error: float
    """Output error on the probe's texts."""


def quantize_together(probe: Probe, plan: BitPlan) -> Together:
    """Quantize weights and sites of the probe's model according to `plan`."""
    weights = probe.rounder.quantize(
        probe.model,
        plan.weight,
        left_float=plan.float_tensors,
        full_range=probe.method.full_range,
    )
    model = simulated(probe.model, weights)
    problem = replace(probe.problem, plan=plan, on_grid=model)
    grids = problem.grids(probe.method.ranges(problem).ranges)
    error = problem.calibration.output_error(model, grids, probe.loss)
    return Together(model, grids, error)


def held_out_judge(config: QuantizeSettings, loaded: LoadedModel, context: StepContext) -> Judge:
    """Judge on training rows not used for calibration: the next ones in its seeded order.

    Raises:
        DataError: too few rows for the limit, or an unknown metric.
        ModelError: the model's classes are not the data's.
    """
    settings, task = config.calibration, loaded.task
    assert task is not None and config.budget is not None
    data = data_of(context, settings.data, is_said=True)
    train = data.split("train", labelled=True)
    seed = context.seed if settings.seed is None else settings.seed
    wanted = min(settings.examples + ROWS, len(train))
    rows = choose_examples(len(train), wanted, seed, settings.data)[settings.examples :]
    limit = config.budget.max_accuracy_drop or 1.0
    if len(rows) * limit < 1:
        raise DataError(
            f"a drop of {limit:g} is measured on at least {round(1 / limit)} labelled rows not "
            f"used for calibration, data {settings.data!r} has {len(rows)} left of "
            f"{len(train)}; lower calibration.examples, add data, or allow a larger drop"
        )
    batch_size = settings.batch_size or BATCH_SIZE
    held_out = train.rows(rows)
    return Judge.of_head(config.model, loaded.folder, task, held_out, data, context, batch_size)
