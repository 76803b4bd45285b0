"""Texts with a class, a score or a set of labels.

Validation is in float32, the precision in which a model is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attar.data.candidates import query_numbers
from attar.data.tables import Split
from attar.data.tokenize import Encoded, TextEncoder
from attar.losses.predictions import AGAINST_GOLD
from attar.losses.targets import Counts, Targets, count_units
from attar.numerics.metrics import METRICS
from attar.numerics.ranking import order_scores
from attar.scoring.matching import predictions_from
from attar.tasks.table import CLASSIFICATION, Gold, Kind
from attar.training.objectives.examples import Validation


@dataclass(frozen=True)
class LabelledTexts:
    """A split for a classification or regression model."""

    encoded: Encoded
    labels: np.ndarray
    stacks: tuple[str, ...] = ("encoder",)
    """The stacks of the model; in an encoder-decoder both read the text."""
    gold: Gold = "class"
    query_of: np.ndarray | None = None
    """For candidates: the number of each row's query."""
    cuts: tuple[float, ...] = ()
    """For sets of labels: the logit threshold of each label."""

    @classmethod
    def of(
        cls,
        split: Split,
        encoder: TextEncoder,
        stacks: tuple[str, ...] = ("encoder",),
        kind: Kind = CLASSIFICATION,
        cuts: tuple[float, ...] = (),
    ) -> LabelledTexts:
        query_of = query_numbers(split.texts) if kind.ranks else None
        return cls(encoder.encode(split.texts), split.labels, stacks, kind.gold, query_of, cuts)

    @property
    def lengths(self) -> np.ndarray:
        return self.encoded.lengths

    @property
    def texts(self) -> Sequence[Encoded]:
        return (self.encoded,)

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, rows: np.ndarray) -> Counts:
        tokens = int(self.encoded.lengths[rows].sum())
        return count_units(self._labels(rows), dict.fromkeys(self.stacks, tokens))

    def _labels(self, rows: np.ndarray) -> Tensor:
        """Labels (B,); for sets, 0 if any label of the row is known and −1 otherwise."""
        labels = self.labels[rows]
        return torch.from_numpy(labels if labels.ndim == 1 else labels.min(axis=1).clip(max=0))

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        arrays = self.encoded.batch(rows)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        masks = dict.fromkeys(self.stacks, inputs["attention_mask"])
        sets = torch.from_numpy(self.labels[rows]).to(device) if self.labels.ndim == 2 else None
        return inputs, Targets(self._labels(rows).to(device), masks, sets=sets)

    def validate(self, wanted: Validation) -> dict[str, float]:
        """Metrics by name, and "loss": the mean loss against the gold labels."""
        logits_NC = wanted.logits(self.encoded)
        against_gold = AGAINST_GOLD[self.gold]
        loss_N = against_gold(torch.from_numpy(logits_NC), torch.from_numpy(self.labels))
        values = self._measured(logits_NC, wanted.metrics)
        return {**values, "loss": float(loss_N.numpy().mean(dtype=np.float64))}

    def _measured(self, logits_NC: np.ndarray, metrics: Sequence[str]) -> dict[str, float]:
        if self.query_of is not None:
            scores = order_scores(logits_NC[:, 0], self.labels, self.query_of)
            return {name: float(scores[name].mean()) for name in metrics}
        predictions = predictions_from(logits_NC, "the model", self.labels, self.cuts or 0.0)
        return {name: float(METRICS[name](predictions, self.labels)) for name in metrics}
