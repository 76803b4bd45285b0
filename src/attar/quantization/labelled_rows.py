"""Labelled rows that judge a quantized model by the data's own metric.

Most choices here ask no labels: they compare outputs with the float ones. Two cannot. A limit on
the drop of accuracy is about accuracy, and is measured on training rows that did not calibrate; and
the literature's percentile is the best of three on the development set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.tables import Split, TextData
from attar.data.tokenize import TextEncoder
from attar.errors import DataError, ModelError
from attar.models.labels import match_classes, why_not_matched
from attar.models.simulated.qparams import SiteQParams
from attar.models.simulated.quantized import Quantizer, site_of
from attar.models.structure.ports import inserted
from attar.numerics.metrics import METRICS, predicted_classes
from attar.quantization.calibration.calibrate import (
    Batch,
    length_sorted,
    right_padded,
    to_tensors,
)
from attar.step import StepContext
from attar.tasks.task import Task


@dataclass(frozen=True)
class LabelledRows:
    """Rows ready for the model, with what they should be answered."""

    batches: Sequence[Batch]
    labels: np.ndarray
    """In the order of the batches."""
    metric: str
    columns: np.ndarray
    """Column of the logits for each of the data's classes."""
    context: StepContext

    @classmethod
    def of(
        cls,
        split: Split,
        data: TextData,
        task: Task,
        folder: Path,
        context: StepContext,
        *,
        batch_size: int,
        asker: str,
    ) -> LabelledRows:
        """Encoded and sorted by length.

        Args:
            split: labelled rows of `data`.
            folder: where the model's tokenizer is.
            asker: the setting that needs them, for messages.
        Raises:
            DataError: the data's metric is not known.
            ModelError: the model has a language head, or its classes are not the data's.
        """
        if task.has_language_head:
            raise ModelError(
                f"{context.name}: {asker} is for models with a head for classes or a number, this "
                f"one {task.answers}"
            )
        encoder = TextEncoder.from_folder(folder, task.max_length, task.input_names)
        encoded = encoder.encode(split.texts)
        order = length_sorted(encoded.lengths, batch_size)
        return cls(
            [right_padded(to_tensors(encoded.batch(rows))) for rows in order],
            split.labels[np.concatenate(order)],
            _first_metric(data, asker),
            _columns(task, data, context),
            context,
        )

    def score(self, model: PreTrainedModel, grids: Sequence[SiteQParams] = ()) -> float:
        """The metric of `model` with a quantizer for each grid.

        Raises:
            NonFiniteError: a logit is NaN or infinite.
            StoppedError: the process was asked to stop.
        """
        logits: list[Tensor] = []
        quantizers = {site_of(grid): Quantizer.of(grid) for grid in grids}
        with torch.inference_mode(), inserted(model, quantizers):
            for batch in self.batches:
                self.context.stop_if_asked("measuring labelled rows")
                logits.append(model(**batch).logits)
        found = torch.cat(logits).numpy()[:, self.columns]
        is_score = self.labels.dtype.kind == "f"
        predicted = found[:, 0] if is_score else predicted_classes(found, self.context.name)
        return METRICS[self.metric](predicted, self.labels)


def _first_metric(data: TextData, asker: str) -> str:
    if not data.metrics or data.metrics[0] not in METRICS:
        raise DataError(
            f"{asker} needs a metric, data {data.name!r} names {list(data.metrics)} and known are "
            f"{list(METRICS)}; set metrics of the data, or leave {asker} out"
        )
    return data.metrics[0]


def _columns(task: Task, data: TextData, context: StepContext) -> np.ndarray:
    """Classes are matched by name: a wrong order would be garbage without an error. A guess about
    spelling is told."""
    if data.kind.is_score:
        return np.zeros(1, dtype=np.int64)
    match = match_classes(task.label_names, data.label_names, order_is_given=data.order_is_given)
    if match is None:
        why = why_not_matched(task.label_names, data.label_names, "the model's config.json")
        raise ModelError(
            f"{context.name}: the classes of the model and of data {data.name!r} cannot be matched "
            f"by name: {why}"
        )
    if match.respelled:
        context.progress.warn(f"{context.name}, data {data.name!r}: of its classes {match.said}")
    return np.array(match.order, dtype=np.int64)
