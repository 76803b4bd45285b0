"""Row 1: SIGKILL at a random training step, then the same command again: bit for bit the same."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

import forked
import training_runs
from training_runs import prepare, read_history, read_weights

SETTINGS = ("max_steps=60", "checkpoint_every=4", "evaluations=4", "micro_batch_size=3")
"""Dropout is on (the model's default), the data is seen ten times, a best state lies in between."""
KILLS = 2
DEADLINE_S = 120


def start(place: Path) -> forked.Forked:
    return forked.start(training_runs.__file__, place, *SETTINGS)


def finish(place: Path) -> None:
    assert start(place).wait(DEADLINE_S) == 0


def newest_step(place: Path) -> int:
    finished = [path.name for path in (place / "scratch").glob("checkpoint-*")]
    return max((int(name.removeprefix("checkpoint-")) for name in finished), default=0)


def kill_after_some_checkpoint(place: Path, wait_for: int, delay_s: float) -> int:
    """SIGKILL, at a moment nobody chose, once a checkpoint of step `wait_for` or later exists."""
    process = start(place)
    deadline = time.monotonic() + DEADLINE_S
    while newest_step(place) < wait_for and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.001)
    time.sleep(delay_s)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(DEADLINE_S) == -signal.SIGKILL, "the run ended before it could be killed"
    return newest_step(place)


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole, killed = prepare(tmp_path / "whole"), prepare(tmp_path / "killed")
    finish(whole)
    draw = random.Random()  # really random: any moment must do
    reached = 0
    for _ in range(KILLS):
        wait_for = reached + draw.randrange(4, 16)
        reached = kill_after_some_checkpoint(killed, wait_for, draw.uniform(0, 0.02))
    assert 0 < reached < 60
    finish(killed)
    assert read_history(killed) == read_history(whole)
    ours, theirs = read_weights(killed), read_weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
