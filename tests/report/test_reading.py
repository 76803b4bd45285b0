"""Reading artifacts: the recipe's order, damage named, nothing invented."""

from __future__ import annotations

from pathlib import Path

import pytest

import made_up_run
from attar.errors import ArtifactError
from attar.report.reading import read_made


def test_steps_come_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    shuffled = dict(sorted(inputs.items(), reverse=True))
    names = [step.name for step in read_made(shuffled, made_up_run.recipe())]
    assert names == ["teacher", "student", "int8", "deploy", "deploy_ort", "scores"]


def test_a_damaged_history_is_named_with_its_line(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    file = inputs["teacher"] / "history.jsonl"
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    with pytest.raises(ArtifactError, match=r"history\.jsonl line 2"):
        read_made(inputs, made_up_run.recipe())


def test_a_step_without_its_result_is_an_error(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    (inputs["int8"] / "result.json").unlink()
    with pytest.raises(ArtifactError, match=r"result\.json"):
        read_made(inputs, made_up_run.recipe())


def test_a_copy_of_a_sweep_finds_the_settings_of_its_step(tmp_path: Path) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path)
    made = {step.name: step for step in read_made(inputs, content)}
    assert made["student@seed=1"].settings["teacher"] == "teacher"
    assert made["student@seed=1"].blocks == 3
