"""A metric of models in memory that all read the same labelled rows as the same tokens.

The rows are encoded once; then any variant of the model (quantized at some sites, with dimensions
disabled) is scored on them. The studies and the choices of quantization judge this way, and give
the metric that `evaluate` gives for the same model and rows.
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
    """Labelled rows, and the metric of a model's answers to them."""

    encoded: Encoded
    labels: np.ndarray
    """(N,), sets of labels (N, C), or what else the metric compares answers with."""
    columns: np.ndarray
    """Column of the scores for each of the data's classes."""
    metric: str
    batch_size: int
    context: StepContext
    scorer_of: Callable[[PreTrainedModel], Scorer] = head_logits
    cuts: ArrayLike = 0.0
    """Of sets of labels, the score from which each is given."""
    of_tokens: Callable[[np.ndarray], np.ndarray] | None = None
    """Of a model that answers every token: its logits (tokens, C) → what the metric reads of each
    row; None: it answers rows."""

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
        """Of models with a head for classes, a number, tags or parts of a text.

        Args:
            name: the model's, for messages.
            folder: where its tokenizer is.
            split: labelled rows of `data`.
        Raises:
            ModelError: the model is for another task or other classes than the data.
            DataError: a metric of the data is not known.
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
        """What the model answers to each row now: classes or numbers, (N,), sets, (N, C), or what
        else the metric reads.

        Args:
            name: of this variant of the model, for progress and messages.
        Raises:
            NonFiniteError: a score is NaN or infinite.
            StoppedError: the process was asked to stop.
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
        """The metric of the model's answers. Raises: as `answers`."""
        return on_all_rows(self.metric, self.answers(model, name), self.labels)


TokenRows = tuple[Encoded, np.ndarray, Callable[[np.ndarray], np.ndarray]]
"""Windows, labels, and what makes answers of the logits of all tokens."""


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
"""Shape of an answer of tokens → how rows are read and answered."""
