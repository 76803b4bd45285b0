"""Questions, and the spans of texts that answer them. An example is a question followed by a window
of a text.

A window has two labels: the tokens at which the answer begins and ends. If the answer is not
entirely in a window, both are the window's first token, as in BERT's code for SQuAD. So a window
makes two predictions, each a choice among its own tokens, and the loss is the mean of both.
Validation is in float32, the precision in which a model is saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attar.data.tables import Marks, Split
from attar.data.tokenize import Encoded
from attar.data.windows import NOWHERE, WindowEncoder, Windows
from attar.losses.targets import Counts, Targets
from attar.models.load import LoadedModel
from attar.scoring.quoting import QuotedRows, agreement, golds_of, threshold_of
from attar.scoring.rows import score_tokens
from attar.training.objectives.examples import Validation

THRESHOLD = "no_answer_threshold"
"""Key of the threshold that is chosen on validation and stored in the model's task."""


@dataclass(frozen=True)
class QuotedTexts:
    """A split for a question-answering model."""

    rows: QuotedRows
    golds: Sequence[tuple[str, ...]]
    """The gold answers of each row."""
    labels: np.ndarray
    """For each window, the indices of the tokens at which the answer begins and ends, int64 (W,
    2)."""
    stacks: tuple[str, ...] = ("encoder",)

    @classmethod
    def of(
        cls, split: Split, encoder: WindowEncoder, stacks: tuple[str, ...] = ("encoder",)
    ) -> QuotedTexts:
        marks = split.marks or ()
        rows = QuotedRows.of(split.texts, encoder)
        labels = [
            _labels(rows.windows, window, marks[int(row)])
            for window, row in enumerate(rows.windows.rows.tolist())
        ]
        golds = golds_of(split.texts, marks)
        return cls(rows, golds, np.array(labels, np.int64).reshape(-1, 2), stacks)

    @property
    def lengths(self) -> np.ndarray:
        return self.rows.windows.encoded.lengths

    @property
    def texts(self) -> Sequence[Encoded]:
        return (self.rows.windows.encoded,)

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, rows: np.ndarray) -> Counts:
        tokens = int(self.lengths[rows].sum())
        both = self.labels.shape[1] * len(rows)
        return {"prediction": both, "labelled": both, **dict.fromkeys(self.stacks, tokens)}

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        arrays = self.rows.windows.encoded.batch(rows)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        labels = torch.from_numpy(self.labels[rows]).to(device)
        return inputs, Targets(labels, dict.fromkeys(self.stacks, inputs["attention_mask"]))

    def validate(self, wanted: Validation) -> dict[str, float]:
        """Metrics by name; "loss", the mean over windows of both predictions; and, if some rows
        have no answer, the best threshold for them, which the metrics use.
        """
        logits = wanted.logits(self.rows.windows.encoded, score_tokens)
        quotes = self.rows.quotes(logits)
        threshold = threshold_of(self.rows, quotes, self.golds)
        found = agreement(self.rows.answers(quotes, threshold), self.golds)
        values = {name: float(found[name].mean()) for name in wanted.metrics}
        chosen = {} if threshold is None else {THRESHOLD: threshold}
        return {**values, **chosen, "loss": self._loss(logits)}

    def _loss(self, logits: np.ndarray) -> float:
        encoded, sums = self.rows.windows.encoded, 0.0
        for window, (begin, end) in enumerate(
            zip(encoded.starts, encoded.starts[1:], strict=False)
        ):
            scores = logits[begin:end].astype(np.float64)
            total = np.logaddexp.reduce(scores, axis=0)
            sums += float((total - scores[self.labels[window], [0, 1]]).mean())
        return sums / len(self)


def with_threshold(student: LoadedModel, validation: Mapping[str, float]) -> LoadedModel:
    """Store the threshold chosen on validation, if any, in the model's task."""
    if student.task is None or THRESHOLD not in validation:
        return student
    chosen = {THRESHOLD: validation[THRESHOLD]}
    return replace(student, task=student.task.model_copy(update=chosen))


def _labels(windows: Windows, window: int, marks: Marks | None) -> tuple[int, int]:
    """Indices of the first and last token of the first answer in a window; (0, 0) if it is not
    entirely in the window.
    """
    if marks is None or not marks.marks:
        return 0, 0
    begin, end, _ = marks.marks[0]
    whole = slice(*windows.encoded.starts[window : window + 2])
    places = np.flatnonzero(windows.begins[whole] != NOWHERE)
    begins, ends = windows.begins[whole][places], windows.ends[whole][places]
    if not len(places) or begins[0] > begin or ends[-1] < end:
        return 0, 0
    first = int(np.searchsorted(ends, begin, side="right"))
    last = int(np.searchsorted(begins, end, side="left")) - 1
    return (int(places[first]), int(places[last])) if first <= last else (0, 0)
