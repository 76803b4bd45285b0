"""Row 1: SIGKILL at a random moment of a cache, then the same command again: the same bytes."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

import caching
import forked
from attar.artifacts import read_json
from attar.training.teaching.asking import PROGRESS_FILE

DEADLINE_S = 120
SETTINGS = ("batch_size=1",)
"""48 batches, saved one by one."""


def start(place: Path) -> forked.Forked:
    return forked.start(caching.__file__, place, *SETTINGS)


@pytest.mark.slow
def test_a_killed_and_resumed_cache_equals_an_uninterrupted_one_byte_for_byte(
    tmp_path: Path,
) -> None:
    whole, killed = caching.prepare(tmp_path / "whole"), caching.prepare(tmp_path / "killed")
    assert start(whole).wait(DEADLINE_S) == 0
    progress = killed / "scratch-cached" / PROGRESS_FILE
    process, wait_for = start(killed), random.Random().randrange(1, 30)
    deadline = time.monotonic() + DEADLINE_S
    while not progress.is_file() or read_json(progress)["batches"] < wait_for:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(DEADLINE_S) == -signal.SIGKILL, "it ended before it could be killed"
    assert not (killed / "cached" / "cache.json").exists()
    assert start(killed).wait(DEADLINE_S) == 0
    assert caching.contents(killed / "cached") == caching.contents(whole / "cached")
