"""A metric of models in memory that all read the same labelled rows with the same tokenizer.

The rows are tokenized once; then any variant of the model (quantized at some sites, with dimensions
disabled) is scored on them. The studies and quantization's choices use this; the metric equals that
of `evaluate` for the same model and rows.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from transformers import PreTrainedModel

from attar.data.tables import Split, TextData
from attar.data.tokenize import Encoded, TextEncoder
from attar.data.windows import WindowEncoder
from attar.errors import ModelError
from attar.numerics.metrics import METRICS, on_all_rows
from attar.scoring.in_memory import head_logits
from attar.scoring.matching import known_metrics, output_columns, predictions_from
from attar.scoring.quoting import QuotedRows, agreement, golds_of
from attar.scoring.rows import Scorer, longest_first, score_rows, score_tokens
from attar.scoring.tagging import TaggedRows, right_and_made
from attar.step import StepContext
from attar.tasks.table import Answer
from attar.tasks.task import Task


@dataclass(frozen=True)
class Judge:
    """Labelled rows, and the metric of a model's predictions for them."""

    encoded: Encoded
    labels: np.ndarray
    """(N,), sets of labels (N, C), or other values that the metric compares predictions with."""
    columns: np.ndarray
    """For each class of the data, its column in the scores."""
    metric: str
    batch_size: int
    context: StepContext
    scorer_of: Callable[[PreTrainedModel], Scorer] = head_logits
    cuts: ArrayLike = 0.0
    """For sets of labels: the score threshold of each label."""
    of_tokens: Callable[[np.ndarray], np.ndarray] | None = None
    """For a model with a prediction per token: its logits (tokens, C) → input of the metric for
    each row; None: predictions are per row."""

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
        """A judge for models with a head for classes, a number, tags or parts of a text.

        Args:
            name: of the model, for messages.
            folder: of its tokenizer.
            split: labelled rows of `data`.

        Raises:
            ModelError: the model is for another task or other classes than the data.
            DataError: a metric of the data is unknown.
        """
        is_known = data.metrics[0] in METRICS or task.kind.answers_tokens
        if task.kind.embeds or not is_known:
            raise ModelError(
                f"{context.name}: only models that answer each row with a class or a number can be "
                f"judged here, and data {data.name!r} is measured by {data.metrics[0]}; measure "
                "this one with quantize and evaluate steps"
            )
        columns = output_columns(name, task, data, context.progress.warn)
        if task.kind.answers_tokens:
            encoded, labels, of_tokens = READ[task.kind.answer](folder, task, split)
            metric = known_metrics(data)[0]
            return cls(
                *(encoded, labels, columns, metric, batch_size, context), of_tokens=of_tokens
            )
        encoder = TextEncoder.from_folder(folder, task.max_length, task.input_names)
        encoded = encoder.encode(split.texts)
        cuts = np.array(task.cuts)[columns] if task.kind.gives_sets else 0.0
        metric = known_metrics(data)[0]
        return cls(encoded, split.labels, columns, metric, batch_size, context, cuts=cuts)

    def answers(self, model: PreTrainedModel, name: str) -> np.ndarray:
        """The model's current predictions for each row: classes or numbers (N,), sets (N, C), or
        other input of the metric.

        Args:
            name: of this variant of the model, for progress and messages.

        Raises:
            NonFiniteError: a score is NaN or infinite.
            StoppedError: a stop was requested.
        """
        batches = longest_first(self.encoded.lengths, self.batch_size)
        title = f"{self.context.name}: {name}"
        with self.context.counted(title, len(self.encoded), "judging a model") as after_batch:
            scorer, score = self.scorer_of(model), score_tokens if self.of_tokens else score_rows
            scores = score(scorer, self.encoded, batches, f"model {name!r}", after_batch)
        if self.of_tokens is not None:
            return self.of_tokens(scores)
        found = scores[:, self.columns]
        return predictions_from(found, f"model {name!r}", self.labels, self.cuts)

    def value(self, model: PreTrainedModel, name: str) -> float:
        """The metric of the model's predictions. Raises as `answers`."""
        return on_all_rows(self.metric, self.answers(model, name), self.labels)


TokenRows = tuple[Encoded, np.ndarray, Callable[[np.ndarray], np.ndarray]]
"""Windows, labels, and a function from the logits of all tokens to predictions."""


def _tagged(folder: Path, task: Task, split: Split) -> TokenRows:
    rows = TaggedRows.of(split.texts, split.marks, WindowEncoder(folder, task))
    marked = [() if marks is None else marks.marks for marks in split.marks or ()]

    def answers(logits: np.ndarray) -> np.ndarray:
        return right_and_made(rows.marks(logits, task.label_names), marked)[0]

    return rows.windows.encoded, np.array(list(map(len, marked))), answers


def _quoted(folder: Path, task: Task, split: Split) -> TokenRows:
    rows = QuotedRows.of(split.texts, WindowEncoder(folder, task))
    golds = golds_of(split.texts, split.marks or ())

    def answers(logits: np.ndarray) -> np.ndarray:
        found = rows.answers(rows.quotes(logits), task.no_answer_threshold)
        return agreement(found, golds)[task.kind.metrics[0]]

    return rows.windows.encoded, np.zeros(len(split)), answers


READ: Mapping[Answer, Callable[[Path, Task, Split], TokenRows]] = {
    "tags": _tagged,
    "quote": _quoted,
}
"""Form of a prediction per token → function that tokenizes rows and makes predictions."""
