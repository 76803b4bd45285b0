"""A plan of bits carried out: all its tensors quantized together, and what that does to answers.

Sensitivities add up only on paper: errors of neighbours may cancel or grow. So before a plan is
taken, the model is quantized by it as the step will do it (weights, then ranges; what is learned
afterwards is left out, since it would have to be learned for each plan), and its outputs are
compared with the float ones: on the calibration texts without labels, or, for a limit on accuracy,
on labelled rows that did not calibrate.

    drop = metric(float) − metric(quantized), both on the same rows

A metric over n rows moves in steps of 1/n: as many rows are needed as make a step no larger than
the limit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.load import load_data
from attar.data.tables import TextData
from attar.data.tokenize import TextEncoder
from attar.errors import DataError, ModelError
from attar.models.load import LoadedModel
from attar.models.simulated.qparams import SiteQParams
from attar.models.simulated.quantized import Quantizer, site_of
from attar.models.structure.ports import inserted
from attar.models.task import Task
from attar.numerics.metrics import METRICS
from attar.quantization.calibration.calibrate import (
    Batch,
    choose_examples,
    length_sorted,
    right_padded,
    to_tensors,
)
from attar.quantization.config import BATCH_SIZE, QuantizeSettings
from attar.quantization.method import BitPlan
from attar.quantization.precision.sensitivity import Probe
from attar.quantization.weights.nearest import put_on_grid_, quantize_weights
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
    weights = quantize_weights(probe.model, plan.weight, probe.rule, left_float=plan.float_tensors)
    model = copy.deepcopy(probe.model)
    put_on_grid_(model, weights)
    problem = replace(probe.problem, plan=plan, on_grid=model)
    grids = problem.grids(probe.method.ranges(problem).ranges)
    error = problem.calibration.output_error(model, grids, probe.loss)
    return Together(model, grids, error)


@dataclass(frozen=True)
class HeldOut:
    """Labelled training rows that did not calibrate."""

    batches: Sequence[Batch]
    labels: np.ndarray
    """In the order of the batches."""
    metric: str
    columns: np.ndarray
    """Column of the logits for each of the data's classes."""
    context: StepContext

    @classmethod
    def of(cls, config: QuantizeSettings, loaded: LoadedModel, context: StepContext) -> HeldOut:
        """The rows that follow the calibration's in its own seeded order.

        Raises:
            DataError: too few rows for the limit, or a metric that is not known.
            ModelError: the model's classes are not the data's.
        """
        settings, task = config.calibration, loaded.task
        assert task is not None and config.budget is not None
        data = load_data(
            context.data[settings.data],
            context.recipe_folder,
            name=settings.data,
            seed=context.seed,
        )
        train = data.split("train", labelled=True)
        seed = context.seed if settings.seed is None else settings.seed
        wanted = min(settings.examples + ROWS, len(train))
        rows = choose_examples(len(train), wanted, seed, settings.data)[settings.examples :]
        limit = config.budget.max_accuracy_drop or 1.0
        if len(rows) * limit < 1:
            raise DataError(
                f"a drop of {limit:g} is measured on at least {round(1 / limit)} labelled rows "
                f"that did not calibrate, data {settings.data!r} has {len(rows)} left of "
                f"{len(train)}; lower calibration.examples, add data, or allow a larger drop"
            )
        encoder = TextEncoder.from_folder(loaded.folder, task.max_length, task.input_names)
        encoded = encoder.encode(train.rows(rows).texts)
        order = length_sorted(encoded.lengths, settings.batch_size or BATCH_SIZE)
        return cls(
            [right_padded(to_tensors(encoded.batch(batch))) for batch in order],
            train.labels[rows][np.concatenate(order)],
            _first_metric(data),
            _columns(task, data),
            context,
        )

    def score(self, model: PreTrainedModel, grids: Sequence[SiteQParams] = ()) -> float:
        """The metric of `model` with a quantizer for each grid."""
        logits: list[Tensor] = []
        quantizers = {site_of(grid): Quantizer.of(grid) for grid in grids}
        with torch.inference_mode(), inserted(model, quantizers):
            for batch in self.batches:
                self.context.stop_if_asked("measuring a plan")
                logits.append(model(**batch).logits)
        found = torch.cat(logits).numpy()[:, self.columns]
        predicted: Any = found[:, 0] if self.labels.dtype.kind == "f" else found.argmax(axis=1)
        return METRICS[self.metric](predicted, self.labels)


def _first_metric(data: TextData) -> str:
    if not data.metrics or data.metrics[0] not in METRICS:
        raise DataError(
            f"max_accuracy_drop needs a metric, data {data.name!r} names {list(data.metrics)} and "
            f"known are {list(METRICS)}; use average_bits or max_latency_ms"
        )
    return data.metrics[0]


def _columns(task: Task, data: TextData) -> np.ndarray:
    """Classes are matched by name: a wrong order would be garbage without an error."""
    if data.objective == "regression":
        return np.zeros(1, dtype=np.int64)
    if set(task.label_names) != set(data.label_names):
        raise ModelError(
            f"the model's classes are {list(task.label_names)}, those of data {data.name!r} are "
            f"{list(data.label_names)}; calibrate with the data the model was trained for"
        )
    return np.array([task.label_names.index(name) for name in data.label_names], dtype=np.int64)
