"""What a run folder says of itself."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from attar.artifacts import Result
from attar.errors import UsageError
from attar.recipe.outcome.status import main_metrics, status_of
from engine_steps import RECIPE, run_small, start_small, until_waiting


def states(folder: Path) -> list[str]:
    return [step.state for step in status_of(folder).steps]


def test_a_finished_run_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    summary = run_small(folder)
    status = status_of(folder)
    assert states(folder) == ["done"] * 5
    assert [step.key for step in status.steps] == [step.key for step in summary.steps]
    assert status.holder is None
    assert status.text().startswith("small: 5 of 5 steps done\n")
    assert json.loads(json.dumps(status.as_json()))["steps"][0]["state"] == "done"


def test_a_running_step_a_killed_one_and_the_waiting_ones_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    process = start_small(folder, at="student:2")
    until_waiting(folder, process)
    assert states(folder) == ["done", "running", "waiting", "waiting", "waiting"]
    assert f"running, process {process.pid} on" in status_of(folder).text()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert states(folder) == ["done", "interrupted", "waiting", "waiting", "waiting"]
    assert f"continue with: attar resume {folder}" in status_of(folder).text()


def test_steps_of_other_settings_are_outdated_and_unreadable_ones_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    run_small(folder)
    process = start_small(
        folder, at="int8:0", ENGINE_RECIPE=RECIPE.replace('"minmax"', '"minmax"\nweight_bits = 4')
    )
    until_waiting(folder, process)
    process.kill()
    process.communicate()
    assert states(folder) == ["done", "done", "interrupted", "outdated", "outdated"]
    (folder / "teacher" / "result.json").write_text("{")
    assert states(folder)[0] == "damaged"
    said = status_of(folder).text()
    assert f"teacher: {folder / 'teacher' / 'result.json'} is damaged" in said
    assert "attar resume" not in said  # it would refuse


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not the folder of a run \(no recipe\.json\)"):
        status_of(tmp_path)


def test_main_numbers_are_those_of_quality() -> None:
    scores = {"models": {"int8": {"form": "x", "accuracy": {"value": 0.9}, "size_mib": 2.0}}}
    assert main_metrics(Result("s", "evaluate", "k", metrics=scores)) == {"int8": 0.9}
    train = {"steps": 10, "validation": {"accuracy": 0.8, "loss": 1.0}, "num_params": 5}
    assert main_metrics(Result("t", "train", "k", metrics=train)) == {
        "validation.accuracy": 0.8,
        "num_params": 5,
    }
    other = {"name": "x", "ok": True, "a": 1, "b": {"c": 2}}
    assert main_metrics(Result("t", "other", "k", metrics=other)) == {"a": 1}
