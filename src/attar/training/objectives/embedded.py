"""Rows of two texts that are embedded separately: training and validation of embedding models.

A batch of B rows has 2B texts: the first texts of all rows, then the second ones. Validation embeds
every distinct text once, and computes the metrics of `evaluate`.

Shapes: B rows, N rows of the split, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attar.data.tables import Split
from attar.data.tokenize import Encoded, TextEncoder
from attar.losses.targets import Counts, Targets, count_units
from attar.numerics.metrics import METRICS
from attar.scoring.vectors import TextPairs
from attar.tasks.task import Task
from attar.training.objectives.examples import Validation


@dataclass(frozen=True)
class EmbeddedTexts:
    """A split for an embedding model."""

    pairs: TextPairs
    encoded: Encoded
    """All distinct first texts, then all distinct second texts."""
    labels: np.ndarray
    """Scores (N,); NaN: no score."""
    stacks: tuple[str, ...]

    @classmethod
    def of(
        cls, split: Split, task: Task, encoder: TextEncoder, stacks: tuple[str, ...]
    ) -> EmbeddedTexts:
        assert task.embedding is not None
        pairs = TextPairs.of(split.texts)
        return cls(pairs, encoder.encode(pairs.read_by(task.embedding)), split.labels, stacks)

    def _texts_of(self, rows: np.ndarray) -> np.ndarray:
        """Indices of the rows' texts in `encoded`, (2B,)."""
        second = self.pairs.passage_of[rows] + len(self.pairs.queries)
        return np.concatenate([self.pairs.query_of[rows], second])

    @property
    def lengths(self) -> np.ndarray:
        every = self.encoded.lengths[self._texts_of(np.arange(len(self)))]
        return every.reshape(2, -1).sum(axis=0)

    @property
    def texts(self) -> Sequence[Encoded]:
        return (self.encoded,)

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, rows: np.ndarray) -> Counts:
        tokens = int(self.encoded.lengths[self._texts_of(rows)].sum())
        return count_units(torch.from_numpy(self.labels[rows]), dict.fromkeys(self.stacks, tokens))

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        numbers = self._texts_of(rows)
        arrays = self.encoded.batch(numbers)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        return inputs, Targets(
            torch.from_numpy(self.labels[rows]).to(device),
            dict.fromkeys(self.stacks, inputs["attention_mask"]),
            texts=torch.from_numpy(self.pairs.identities[numbers].reshape(2, -1)).to(device),
        )

    def validate(self, wanted: Validation) -> dict[str, float]:
        """Metrics by name, and "loss": the mean over the rows of 1 − cosine of the two vectors."""
        vectors = wanted.logits(self.encoded, texts_per_row=2)
        found = {
            name: METRICS[name](values, labels) if name in METRICS else float(values.mean())
            for name, (values, labels) in self.pairs.answers(
                wanted.metrics, vectors, self.labels
            ).items()
        }
        return {**found, "loss": float(1 - self.pairs.cosines(vectors).mean())}
