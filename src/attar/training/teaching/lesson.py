"""What a teacher is to teach: all it must know before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from attar.losses.total import TotalLoss
from attar.progress import Progress
from attar.training.objectives.examples import Examples
from attar.training.teaching.pairing import states_of


@dataclass(frozen=True)
class Lesson:
    """The rows of one student, and what is compared on them."""

    step: str
    train: Examples
    max_length: int
    loss: TotalLoss
    seed: int
    device: torch.device
    progress: Progress

    @property
    def states(self) -> Mapping[str, tuple[int, ...]]:
        """Stack → the teacher's hidden states that a loss compares with."""
        return states_of(self.loss)
