"""Texts with a class or a score each.

Validation is in float32, the precision a model is shipped in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.tables import Split
from attar.data.tokenize import Encoded, TextEncoder
from attar.losses.predictions import cross_entropy, squared_error
from attar.losses.targets import Counts, Targets, count_units
from attar.numerics.metrics import METRICS
from attar.scoring.in_memory import head_logits
from attar.scoring.matching import predictions_from
from attar.scoring.rows import AfterBatch, longest_first, score_rows


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
        after_batch: AfterBatch,
    ) -> dict[str, float]:
        """Metrics by name, and "loss": the mean against the gold labels.

        Raises:
            NonFiniteError: a prediction is NaN or infinite.
        """
        batches = longest_first(self.lengths, batch_size)
        scorer = head_logits(model)
        logits_NC = score_rows(scorer, self.encoded, batches, "the model", after_batch)
        is_score = self.labels.dtype.kind == "f"
        against_gold = squared_error if is_score else cross_entropy
        loss_N = against_gold(torch.from_numpy(logits_NC), torch.from_numpy(self.labels))
        predictions = predictions_from(logits_NC, "the model", is_score=is_score)
        values = {name: float(METRICS[name](predictions, self.labels)) for name in metrics}
        return {**values, "loss": float(loss_N.numpy().mean(dtype=np.float64))}
