"""The objective between a student and its teacher, and the inputs of `Teacher.prepare`.

The objective depends only on the shapes of the two models, so mismatches (depths, widths, numbers
of heads, stacks) are rejected here, before a forward pass. Models on the meta device are enough, so
plans and steps share these checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from attar.losses.config import LossConfig
from attar.losses.term import Pair
from attar.losses.total import TotalLoss, needs_of
from attar.progress import Progress
from attar.seeds import derive_seed
from attar.training.forward import shape_of
from attar.training.objectives.examples import Examples


def loss_of(
    losses: Sequence[LossConfig],
    objective: str,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    seed: int,
) -> TotalLoss:
    """The losses of a step, between these two models.

    Args:
        objective: of the data.
        seed: for the initial weights of learned projections.

    Raises:
        ModelError: a loss cannot compare the two models.
    """
    pair = None
    if teacher is not None and needs_of(losses).inside:
        pair = Pair(shape_of(student), shape_of(teacher), derive_seed(seed, "projections"))
    return TotalLoss(losses, objective, pair)


@dataclass(frozen=True)
class TeacherInputs:
    """What a teacher needs before training starts: the student's rows, and the losses."""

    step: str
    train: Examples
    max_length: int
    loss: TotalLoss
    seed: int
    device: torch.device
    progress: Progress
