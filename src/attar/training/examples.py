"""Encoded texts with their labels, cut into torch batches on demand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attar.data.tables import Split
from attar.data.tokenize import Encoded, TextEncoder
from attar.losses.targets import Targets


@dataclass(frozen=True)
class Examples:
    """One split, ready for a model. Row i is row i of the split."""

    encoded: Encoded
    labels: np.ndarray

    @classmethod
    def of(cls, split: Split, encoder: TextEncoder) -> Examples:
        return cls(encoder.encode(split.texts), split.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        """Inputs of shape (B, T), padded to the longest of these rows, and what is known about
        them.
        """
        arrays = self.encoded.batch(rows)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        labels = torch.from_numpy(self.labels[rows]).to(device)
        return inputs, Targets(labels, inputs["attention_mask"])
