"""The learning rate is that of transformers' schedulers, step for step."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from attar.training.config import TrainStep
from attar.training.update.optimizer import Schedule, ScheduleKind

THEIRS = {"constant": "constant_with_warmup"}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # no optimizer runs here
@pytest.mark.parametrize("kind", ["linear", "cosine", "inverse_sqrt", "constant"])
@pytest.mark.parametrize("warmup", [0, 7, 40])
def test_schedules_equal_transformers(kind: ScheduleKind, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = get_scheduler(THEIRS.get(kind, kind), optimizer, warmup, 40)
    ours = Schedule(kind, 0.3, 40, warmup)
    for step in range(40):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12), step
        theirs.step()


def test_the_inverse_square_root_rises_linearly_and_meets_its_curve() -> None:
    """min(s / W, √(W / s)): with 20,000 steps, the schedule of UCB/EECS-2023-141."""
    rate = Schedule("inverse_sqrt", 0.3, 524_288, 20_000)
    for step in (1, 19_999, 20_000, 20_001, 524_287):
        assert rate(step) == pytest.approx(0.3 * min(step / 20_000, (20_000 / step) ** 0.5))


def test_warmup_is_a_share_of_the_steps_rounded_up_or_their_number() -> None:
    step = TrainStep(model="m", data="d", warmup_ratio=0.1)
    assert step.warmup(25) == 3
    assert step.model_copy(update={"warmup_steps": 7}).warmup(25) == 7
    assert step.model_copy(update={"warmup_steps": 0}).warmup(25) == 0


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_schedule_ends_at_its_minimum(kind: ScheduleKind) -> None:
    plain, floored = (Schedule(kind, 0.3, 40, 7, minimum) for minimum in (0.0, 0.1))
    assert floored(7) == pytest.approx(0.3)
    assert floored(40) == pytest.approx(0.03)
    for step in range(7, 41):
        assert floored(step) == pytest.approx(0.03 + 0.9 * plain(step))
    assert [floored(step) for step in range(7)] == [plain(step) for step in range(7)]
