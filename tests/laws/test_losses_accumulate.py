"""The gradient of a batch does not depend on how it is cut into micro-batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attar.losses.config import CrossEntropy, ForwardKl, HiddenMse, LossConfig
from attar.losses.shapes import Pair
from attar.losses.targets import Targets, count_units
from attar.losses.total import TotalLoss
from attar.models.load import load_model
from attar.training.forward import forward, shape_of

FLOAT64_SUMS = 1e-12
"""Relative: sums of a few hundred float64 terms in another order."""
LENGTHS = np.array([3, 9, 5, 12, 4, 7, 2, 12])
LABELS = torch.tensor([0, 1, -1, 1, 0, -1, 1, 0])


def gradient(
    student: torch.nn.Module, teacher: torch.nn.Module, losses: list[LossConfig], size: int
) -> torch.Tensor:
    """The whole batch's gradient, accumulated over micro-batches, each with its own padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (8, 12), generator=generator)
    pair = Pair(shape_of(student), shape_of(teacher))  # type: ignore[arg-type]
    loss = TotalLoss(losses, "classification", pair)
    counts = count_units(LABELS, {"encoder": int(LENGTHS.sum())})
    student.zero_grad()
    for begin in range(0, 8, size):
        rows = slice(begin, begin + size)
        width = LENGTHS[rows].max()
        mask = (torch.arange(width) < torch.tensor(LENGTHS[rows])[:, None]).long()
        inputs = {"input_ids": ids[rows, :width] * mask, "attention_mask": mask}
        with torch.no_grad():
            taught = forward(teacher, inputs, loss.needs)  # type: ignore[arg-type]
        given = forward(student, inputs, loss.needs)  # type: ignore[arg-type]
        loss(given, taught, Targets(LABELS[rows], {"encoder": mask}), counts).total.backward()
    parts = [p.grad.flatten() for p in student.parameters() if p.grad is not None]
    return torch.cat(parts)


@pytest.mark.parametrize(
    "losses",
    [[CrossEntropy()], [ForwardKl(temperature=3)], [HiddenMse()], [CrossEntropy(), HiddenMse()]],
    ids=lambda losses: "+".join(loss.kind for loss in losses),
)
def test_micro_batches_of_any_size_give_the_gradient_of_the_whole_batch(
    tiny_bert: Path, losses: list[LossConfig]
) -> None:
    student, teacher = (load_model(tiny_bert).model.double() for _ in range(2))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(
                0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            )
    whole = gradient(student, teacher, losses, 8)
    assert whole.norm() > 0
    for size in (1, 3):
        cut = gradient(student, teacher, losses, size)
        assert (cut - whole).norm() <= FLOAT64_SUMS * whole.norm()
