"""A metric of models in memory that all read the same labelled rows as the same tokens.

The rows are encoded once; then any variant of the model (quantized at some sites, with dimensions
disabled) is scored on them. The studies and the choices of quantization judge this way, and give
the metric that `evaluate` gives for the same model and rows.
Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from transformers import PreTrainedModel

from attar.data.tables import Split, TextData
from attar.data.tokenize import Encoded, TextEncoder
from attar.errors import ModelError
from attar.numerics.metrics import METRICS
from attar.scoring.in_memory import head_logits
from attar.scoring.matching import known_metrics, output_columns, predictions_from
from attar.scoring.rows import Scorer, longest_first, score_rows
from attar.step import StepContext
from attar.tasks.task import Task


@dataclass(frozen=True)
class Judge:
    """Labelled rows, and the metric of a model's answers to them."""

    encoded: Encoded
    labels: np.ndarray
    """(N,); sets of labels (N, C)."""
    columns: np.ndarray
    """Column of the scores for each of the data's classes."""
    metric: str
    batch_size: int
    context: StepContext
    scorer_of: Callable[[PreTrainedModel], Scorer] = head_logits
    cuts: ArrayLike = 0.0
    """Of sets of labels, the score from which each is given."""

    @classmethod
    def of_head(
        cls,
        name: str,
        folder: Path,
        task: Task,
        split: Split,
        data: TextData,
        context: StepContext,
        batch_size: int,
    ) -> Judge:
        """Of models with a head for classes or a number.

        Args:
            name: the model's, for messages.
            folder: where its tokenizer is.
            split: labelled rows of `data`.
        Raises:
            ModelError: the model is for another task or other classes than the data.
            DataError: a metric of the data is not known.
        """
        if task.kind.embeds or data.metrics[0] not in METRICS:
            raise ModelError(
                f"{context.name}: only models that answer each row with a class or a number can be "
                f"judged here, and data {data.name!r} is measured by {data.metrics[0]}; measure "
                "this one with quantize and evaluate steps"
            )
        columns = output_columns(name, task, data, context.progress.warn)
        encoder = TextEncoder.from_folder(folder, task.max_length, task.input_names)
        encoded = encoder.encode(split.texts)
        cuts = np.array(task.cuts)[columns] if task.kind.gives_sets else 0.0
        metric = known_metrics(data)[0]
        return cls(encoded, split.labels, columns, metric, batch_size, context, cuts=cuts)

    def answers(self, model: PreTrainedModel, name: str) -> np.ndarray:
        """What the model answers to each row now: classes or numbers, (N,), or sets, (N, C).

        Args:
            name: of this variant of the model, for progress and messages.
        Raises:
            NonFiniteError: a score is NaN or infinite.
            StoppedError: the process was asked to stop.
        """
        batches = longest_first(self.encoded.lengths, self.batch_size)
        with self.context.progress.task(f"{self.context.name}: {name}", len(self.labels)) as bar:

            def after_batch(rows: int) -> None:
                self.context.stop_if_asked("judging a model")
                bar.advance(rows)

            scorer = self.scorer_of(model)
            scores = score_rows(scorer, self.encoded, batches, f"model {name!r}", after_batch)
        found = scores[:, self.columns]
        return predictions_from(found, f"model {name!r}", self.labels, self.cuts)

    def value(self, model: PreTrainedModel, name: str) -> float:
        """The metric of the model's answers. Raises: as `answers`."""
        return METRICS[self.metric](self.answers(model, name), self.labels)
