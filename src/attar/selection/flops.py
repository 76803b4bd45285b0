"""Operations of forward passes over chunks, and what a proxy saves of them.

A decoder's operations over one text of T tokens are c + a·T + b·T²: its linear maps, and attention;
c is what a convolution adds at the ends. Three lengths give all three, and with them the sum over
any number of chunks. Mamba-2 attends within blocks of `chunk_size` tokens, of which the last is
filled up: there the same holds of the number of blocks, and a token less saves its linear maps.
Padding to other texts is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from attar.models.cost import BLOCK_BY_BLOCK, flops


def forward_flops(model: PreTrainedModel, tokens: NDArray[Any]) -> int:
    """Of one forward pass over texts of these numbers of tokens, exact but for padding."""
    block = model.config.chunk_size if model.config.model_type in BLOCK_BY_BLOCK else 1
    lengths = tokens.astype(np.float64)
    blocks = np.ceil(lengths / block)
    at_1, at_2, at_3 = (flops(model, 1, block * count) for count in (1, 2, 3))
    squared = (at_3 - 2 * at_2 + at_1) // 2
    first = at_2 - at_1 - 3 * squared
    fixed = at_1 - first - squared
    saved = flops(model, 1, 2) - flops(model, 1, 1) if block > 1 else 0
    every = fixed * len(lengths) + first * blocks.sum() + squared * (blocks**2).sum()
    return round(every - saved * (block * blocks - lengths).sum())


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
