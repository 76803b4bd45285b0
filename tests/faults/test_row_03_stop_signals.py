"""Row 3: SIGTERM and SIGINT end a run with everything saved, one line how to go on, exit code 75.

And what the run promises of a SIGKILL: finished steps are reused, an unfinished one goes on from
its scratch.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attar.artifacts import verify
from engine_steps import places_reached, run_small, start_small, until_waiting


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "small"


def first_result(folder: Path) -> dict[str, object]:
    """Metrics of a run that nothing disturbed."""
    summary = run_small(folder.parent / "undisturbed")
    return {step.name: step.metrics for step in summary.steps}


@pytest.mark.parametrize(
    ("number", "place", "word"),
    [
        (signal.SIGTERM, "student:3", "step 'student' stopped at 3 of 5"),
        (signal.SIGINT, "student:0", "step 'student' stopped at 0 of 5"),
        (signal.SIGTERM, "int8:0", "stopped before step 'scores'"),
    ],
)
def test_a_stopped_run_says_how_to_go_on_and_goes_on(
    folder: Path, number: signal.Signals, place: str, word: str
) -> None:
    process = start_small(folder, at=place)
    until_waiting(folder, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    last = err.strip().splitlines()[-1]
    assert last == f"{word}; everything is saved; continue with: attar resume {folder}"
    assert f"{number.name}: saving, then stopping" in err
    start_small(folder).communicate(timeout=60)
    again = run_small(folder)
    assert all(step.reused for step in again.steps)
    assert {step.name: step.metrics for step in again.steps} == first_result(folder)
    # The step that was waiting when the signal came passes its place once more when it goes on;
    # every other place is passed exactly once.
    reached = places_reached(folder)
    repeated = {place: reached.count(place) for place in reached if reached.count(place) > 1}
    assert repeated == ({place: 2} if place.startswith("student") else {})


@pytest.mark.parametrize("place", ["teacher:0", "student:3", "int8:0", "scores:0"])
def test_a_killed_run_reuses_what_was_finished_and_goes_on_inside_what_was_not(
    folder: Path, place: str
) -> None:
    process = start_small(folder, at=place)
    until_waiting(folder, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    process = start_small(folder)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    reached = places_reached(folder)
    assert {p: reached.count(p) for p in reached if reached.count(p) > 1} == {place: 2}
    assert not (folder / ".staging").exists()
    again = run_small(folder)
    assert {step.name: step.metrics for step in again.steps} == first_result(folder)
    for step in again.steps:
        verify(folder / step.name)


def test_a_kill_after_the_seal_and_before_the_rename_costs_nothing(folder: Path) -> None:
    run_small(folder)
    key = run_small(folder).steps[1].key
    (folder / ".staging").mkdir()
    (folder / "student").rename(folder / ".staging" / f"student-{key}")
    assert all(step.reused for step in run_small(folder).steps)
    assert not (folder / ".staging").exists()


TWO_MODELS_AND_A_SIGNAL = """
import faulthandler, os, signal, sys
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13

from attar.models.deployed.cpu_runtimes import OpenVinoRuntime

faulthandler.enable()
file = Path(sys.argv[1]) / "relu.xml"
numbers = opset13.parameter([1, 2], np.float32, name="x")
openvino.save_model(openvino.Model([opset13.relu(numbers)], [numbers]), file)
first = OpenVinoRuntime(file, 1)
second = OpenVinoRuntime(file, 1)
del first
del second
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_two_deployed_models_is_still_only_a_question(tmp_path: Path) -> None:
    """Two owners of OpenVINO in one process once left a freed signal stack behind."""
    command = [sys.executable, "-c", TWO_MODELS_AND_A_SIGNAL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "asked to stop"), done.stderr
