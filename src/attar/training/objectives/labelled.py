"""Texts with a class or a score each.

Validation is in float32, the precision a model is shipped in; its rows are read in order of length,
which wastes no computation on padding and leaves no trace in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.tables import Split
from attar.data.tokenize import Encoded, TextEncoder
from attar.losses.predictions import cross_entropy, squared_error
from attar.losses.targets import Counts, Targets, count_units
from attar.losses.term import Needs
from attar.numerics.metrics import METRICS
from attar.training.forward import forward
from attar.training.objectives.evaluating import evaluating, in_order_of_length
from attar.training.update.guard import require_finite_predictions


@dataclass(frozen=True)
class LabelledTexts:
    """One split, ready for a classifier or a regressor."""

    encoded: Encoded
    labels: np.ndarray
    stacks: tuple[str, ...] = ("encoder",)
    """The stacks of the model; in an encoder-decoder both read the text."""

    @classmethod
    def of(
        cls, split: Split, encoder: TextEncoder, stacks: tuple[str, ...] = ("encoder",)
    ) -> LabelledTexts:
        return cls(encoder.encode(split.texts), split.labels, stacks)

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
        return count_units(torch.from_numpy(self.labels[rows]), dict.fromkeys(self.stacks, tokens))

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        arrays = self.encoded.batch(rows)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        labels = torch.from_numpy(self.labels[rows]).to(device)
        return inputs, Targets(labels, dict.fromkeys(self.stacks, inputs["attention_mask"]))

    def validate(
        self,
        model: PreTrainedModel,
        metrics: Sequence[str],
        batch_size: int,
        after_batch: Callable[[], None],
    ) -> dict[str, float]:
        """Metrics by name, and "loss": the mean against the gold labels.

        Raises:
            NonFiniteError: a prediction is no number.
        """
        logits_NC = np.zeros((len(self), int(model.config.num_labels or 1)), np.float32)
        is_score = self.labels.dtype.kind == "f"
        against_gold = squared_error if is_score else cross_entropy
        loss = 0.0
        with evaluating(model):
            for rows in in_order_of_length(self.lengths, batch_size):
                inputs, targets = self.batch(rows, model.device)
                outputs = forward(model, inputs, Needs())
                per_row = against_gold(outputs.logits, targets.labels)
                loss += float(per_row.cpu().double().sum())  # Apple's GPU has no float64
                logits_NC[rows] = outputs.logits.cpu().numpy()
                after_batch()
        require_finite_predictions(logits_NC)
        predictions = logits_NC[:, 0] if is_score else logits_NC.argmax(axis=1)
        values = {name: float(METRICS[name](predictions, self.labels)) for name in metrics}
        return {**values, "loss": loss / max(len(self), 1)}
