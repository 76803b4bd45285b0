"""Fault 19: killed while it makes rows, run again: only what is missing is made, nothing twice."""

from __future__ import annotations

import gzip
import signal
import sys
import time
from pathlib import Path

import pytest

import forked
import tiny
import training_runs
from attar.data.augmented import ROWS_FILE
from attar.distillation import run as step
from attar.distillation.config import AugmentStep

ROWS = 80
DEADLINE_S = 60


def make(place: Path, out: Path) -> int:
    """Run the step with a part for every row; how many rows it made anew."""
    step.CHUNK_ROWS = 1
    context = training_runs.context_for(out, recipe_folder=place)
    parts = context.scratch / "parts"
    before = len(list(parts.glob("*.json")))
    settings = {"model": "lm", "data": "films", "copies": 2, "top": 5, "max_length": 24}
    step.augment(AugmentStep(**settings, precision="fp32"), context)
    return ROWS - before


def test_a_killed_augmentation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "CHUNK_ROWS", 1)
    tiny.write_tiny_masked_lm(tmp_path / "lm")
    training_runs.write_films(tmp_path / "films", train=ROWS, validation=8)
    parts = tmp_path / "cut" / "scratch" / "parts"
    process = forked.start(__file__, tmp_path, tmp_path / "cut")
    deadline = time.monotonic() + DEADLINE_S
    while len(list(parts.glob("*.json"))) < 5 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 5 <= ROWS - make(tmp_path, tmp_path / "cut") < ROWS
    make(tmp_path, tmp_path / "whole")
    cut, whole = (
        gzip.decompress((tmp_path / name / "out" / ROWS_FILE).read_bytes())
        for name in ("cut", "whole")
    )
    assert cut == whole
    assert whole.count(b"\n") == 2 * ROWS


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
