"""A plan of bits carried out: all its tensors quantized together, and what that does to answers.

Sensitivities add up only on paper. So before a plan is taken, the model is quantized by it as the
step will do it (weights, then ranges, without what is learned afterwards), and its outputs are
compared with the float ones: on the calibration texts without labels, or, for a limit on accuracy,
on labelled rows that did not calibrate.

    drop = metric(float) − metric(quantized), both on the same rows

A metric over n rows moves in steps of 1/n: as many rows are needed as make a step no larger than
the limit.
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
"""Held-out rows at most: a step of accuracy is 0.2 points."""


@dataclass(frozen=True)
class Together:
    """A model quantized by a plan."""

    model: PreTrainedModel
    grids: Sequence[SiteQParams]
    output_error: float
    """Of its outputs on the probe's texts."""


def quantize_together(probe: Probe, plan: BitPlan) -> Together:
    """Weights and sites of the probe's model by `plan`."""
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
    """Training rows that did not calibrate: those that follow in the calibration's seeded order.

    Raises:
        DataError: too few rows for the limit, or a metric that is not known.
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
