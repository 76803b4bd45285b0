"""Operations of forward passes over chunks, and what a proxy saves of them.

A decoder's operations over one text of T tokens are a·T + b·T²: its linear maps, and attention. Two
lengths give a and b, and with them the sum over any number of chunks. Padding is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from attar.models.cost import flops


def forward_flops(model: PreTrainedModel, tokens: NDArray[Any]) -> int:
    """Of one forward pass over texts of these numbers of tokens, exact but for padding."""
    one, two = flops(model, 1, 1), flops(model, 1, 2)
    squared = (two - 2 * one) // 2
    lengths = tokens.astype(np.float64)
    return round((one - squared) * lengths.sum() + squared * (lengths**2).sum())


@dataclass(frozen=True)
class OfflineFlops:
    """What it takes to score a corpus before any student is trained, by a proxy and without."""

    teacher: int
    """On the sample."""
    reference: int
    """On the sample."""
    training: int
    """Of the proxy."""
    predicting: int
    """By the proxy, on every chunk."""
    sampled: float
    """Share of the corpus's tokens that the sample has."""

    @property
    def total(self) -> int:
        return self.teacher + self.reference + self.training + self.predicting

    @property
    def teacher_on_all(self) -> int:
        """What the teacher would take on every chunk."""
        return round(self.teacher / self.sampled)

    @property
    def share_of_teacher(self) -> float:
        return self.total / self.teacher_on_all

    def as_json(self) -> dict[str, float]:
        """For a result."""
        return {
            **{name: value for name, value in vars(self).items() if name != "sampled"},
            "total": self.total,
            "teacher_on_all": self.teacher_on_all,
            "reference_on_all": round(self.reference / self.sampled),
            "share_of_teacher": self.share_of_teacher,
        }

    def sentence(self) -> str:
        """For a plan."""
        return (
            f"{self.total:.2g} FLOPs of scoring with a proxy (sample {self.teacher:.2g} by the "
            f"teacher and {self.reference:.2g} by the reference, training {self.training:.2g}, "
            f"predicting {self.predicting:.2g}); the teacher alone would take "
            f"{self.teacher_on_all:.2g} for every chunk: {self.share_of_teacher:.0%} of it"
        )
