"""Fault 19: a fold that is killed or stopped as soon as its model is written; the same command ends
with the bytes of a run that nothing disturbed."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

import forked
import training_runs

DEADLINE_S = 240
RECIPE = """
name = "x"
[data.films]
source = "files"
path = "films"
text = "text"
[steps.plain]
run = "fold"
model = "chain"
data = "films"
examples = 8
[steps.again]
run = "fold"
model = "plain"
data = "films"
examples = 8
"""
WAITS_AFTER_THE_MODEL = """
import sys, time
from pathlib import Path
from attar.cli import main
from attar.reparameterization import run as step

save, here = step.save_model, Path(sys.argv.pop())

def save_and_wait(loaded, folder):
    save(loaded, folder)
    (here / "written").touch()
    while not (here / "go").exists():
        time.sleep(0.01)

step.save_model = save_and_wait
sys.exit(main())
"""


def start(place: Path) -> forked.Forked:
    return forked.start("-c", WAITS_AFTER_THE_MODEL, "run", "recipe.toml", place, cwd=place)


def finish(place: Path) -> None:
    (place / "go").touch()
    process = start(place)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err


def contents(place: Path) -> dict[str, bytes]:
    """Every file of both models."""
    runs = place / "runs" / "x"
    files = [file for step in ("plain", "again") for file in (runs / step / "model").iterdir()]
    return {file.relative_to(runs).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and recipe, and a run of it that nothing disturbed."""
    place = training_runs.prepare(tmp_path_factory.mktemp("whole"))
    training_runs.write_chain(place)
    (place / "recipe.toml").write_text(RECIPE)
    finish(place)
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)]
)
def test_a_disturbed_fold_ends_with_the_bytes_of_an_undisturbed_one(
    number: signal.Signals, code: int, ready: Path, tmp_path: Path
) -> None:
    for name in ("films", "chain"):
        shutil.copytree(ready / name, tmp_path / name)
    shutil.copy(ready / "recipe.toml", tmp_path)
    process = start(tmp_path)
    deadline = time.monotonic() + DEADLINE_S
    while not (tmp_path / "written").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    if number is signal.SIGTERM:  # a question, which the step answers when it goes on
        (tmp_path / "go").touch()
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, err
    assert not (tmp_path / "runs" / "x" / "again").exists()
    finish(tmp_path)
    assert contents(tmp_path) == contents(ready)
