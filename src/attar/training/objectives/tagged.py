"""Texts with a tag for each word. An example is a window of a text.

Only the first token of a word has a label, and only in its own window, so each word counts once.
Validation is in float32, the precision in which a model is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attar.data.tables import Split
from attar.data.tokenize import Encoded
from attar.data.windows import WindowEncoder
from attar.losses.predictions import cross_entropy
from attar.losses.targets import UNLABELLED, Counts, Targets
from attar.numerics.metrics import on_all_rows
from attar.scoring.rows import score_tokens
from attar.scoring.tagging import TaggedRows, right_and_made
from attar.tasks.tagging import Mark, tags_of_marks
from attar.training.objectives.examples import Validation


@dataclass(frozen=True)
class TaggedTexts:
    """A split for a tagging model."""

    rows: TaggedRows
    marked: Sequence[Sequence[Mark]]
    """The marks of each row."""
    names: tuple[str, ...]
    """Names of the tags, in the order of the logits."""
    labels: np.ndarray
    """Label of each token of all windows, int64."""
    stacks: tuple[str, ...] = ("encoder",)

    @classmethod
    def of(
        cls,
        split: Split,
        names: tuple[str, ...],
        encoder: WindowEncoder,
        stacks: tuple[str, ...] = ("encoder",),
    ) -> TaggedTexts:
        marks = split.marks or ()
        rows = TaggedRows.of(split.texts, marks, encoder)
        labels = np.full(len(rows.windows.encoded.ids), UNLABELLED, np.int64)
        number = {name: i for i, name in enumerate(names)}
        marked = [() if of_row is None else of_row.marks for of_row in marks]
        for words, pieces, of_row in zip(rows.words, rows.pieces, marked, strict=True):
            tags = np.array([number[tag] for tag in tags_of_marks(of_row, words)], np.int64)
            labels[pieces[pieces >= 0]] = tags[pieces >= 0]
        return cls(rows, marked, names, labels, stacks)

    @property
    def lengths(self) -> np.ndarray:
        return self.rows.windows.encoded.lengths

    @property
    def texts(self) -> Sequence[Encoded]:
        return (self.rows.windows.encoded,)

    def __len__(self) -> int:
        return len(self.rows.windows)

    def counts(self, rows: np.ndarray) -> Counts:
        labelled = int((self._labels(rows) != UNLABELLED).sum())
        tokens = int(self.lengths[rows].sum())
        both = {"prediction": labelled, "labelled": labelled}
        return both | dict.fromkeys(self.stacks, tokens)

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        arrays = self.rows.windows.encoded.batch(rows)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        labels = torch.from_numpy(self._labels(rows)).to(device)
        return inputs, Targets(labels, dict.fromkeys(self.stacks, inputs["attention_mask"]))

    def _labels(self, rows: np.ndarray) -> np.ndarray:
        """Labels of some windows, (B, T)."""
        lengths, starts = self.lengths[rows], self.rows.windows.encoded.starts[rows]
        labels = np.full((len(rows), int(lengths.max(initial=0))), UNLABELLED, np.int64)
        for row, (begin, length) in enumerate(zip(starts, lengths, strict=True)):
            labels[row, :length] = self.labels[begin : begin + length]
        return labels

    def validate(self, wanted: Validation) -> dict[str, float]:
        """Metrics by name, and "loss": the mean over all words."""
        logits = wanted.logits(self.rows.windows.encoded, score_tokens)
        is_word = self.labels != UNLABELLED
        loss = cross_entropy(
            torch.from_numpy(logits[is_word]), torch.from_numpy(self.labels[is_word])
        )
        found, marked = right_and_made(self.rows.marks(logits, self.names), self.marked)
        values = {name: on_all_rows(name, found, marked) for name in wanted.metrics}
        return {**values, "loss": float(loss.numpy().mean(dtype=np.float64))}
