"""A whole recipe, end to end, on a tiny model: made once, reused, killed, gone on with, swept."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

import attar
import forked
import tiny_recipe
from attar.artifacts import read_json, read_result, verify
from attar.recipe.load import load_recipe
from attar.recipe.report_again import report_again
from tiny_recipe import DEADLINE_S, NAME, RECIPE, STEPS, TinyRun, write

pytestmark = pytest.mark.e2e

STUDENT, INT8 = RECIPE.index("[steps.student]"), RECIPE.index("[steps.int8]")
SCORES = RECIPE.index("[steps.scores]")
SWEPT = RECIPE[:INT8] + RECIPE[SCORES:].replace(', "int8", "deploy", "deploy_ort"', "")
"""Teacher, student, scores, report."""
LONG = RECIPE[:STUDENT].replace("max_steps", 'precision = "fp32"\nmax_steps') + RECIPE[
    STUDENT:INT8
].replace("max_steps = 2", 'precision = "fp32"\nmax_steps = 100\ncheckpoint_every = 5')
"""Teacher, and a student long enough to be killed on its way; in a precision that is said, not
measured on each first batch."""


def test_every_artifact_is_as_it_was_written_and_a_second_run_reuses_all(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    """Another program, another current folder, the same run."""
    shutil.copytree(tiny_run.folder, tmp_path / NAME)
    summary = attar.run(tiny_run.recipe, out=tmp_path, quiet=True)
    assert tuple(step.name for step in summary.steps) == STEPS
    assert all(step.reused for step in summary.steps)
    for step in summary.steps:
        assert verify(tmp_path / NAME / step.name).key == step.key
    scores = summary.metrics("scores")["models"]
    assert list(scores) == list(STEPS[:5])
    assert {model["form"] for model in scores.values()} == {
        "float",
        "simulated",
        "openvino",
        "onnxruntime",
    }
    assert scores["student"]["num_params"] == scores["deploy"]["num_params"]


def test_a_sweep_makes_a_student_a_seed_and_the_report_shows_both(tmp_path: Path) -> None:
    recipe = write(tmp_path, SWEPT)
    single = attar.run(recipe, out=tmp_path / "runs", quiet=True)
    overrides = ['sweep={ steps = ["student"], seed = [0, 1] }']
    summary = attar.run(recipe, overrides=overrides, out=tmp_path / "runs", quiet=True)
    made = {step.name for step in summary.steps if not step.reused}
    students = [f"student@seed={seed}" for seed in (0, 1)]
    assert made == {*students, "scores@seed=0", "scores@seed=1", "report"}
    assert single.steps[0].key == summary.steps[0].key
    first, second = (
        (summary.folder / name / "model" / "model.safetensors").read_bytes() for name in students
    )
    assert first != second
    statistics = read_json(summary.folder / "sweep.json")["steps"]
    assert statistics["student"]["runs"] == students
    page = (summary.folder / "report" / "index.html").read_text()
    assert all(name in page for name in students)


def newest_checkpoint(folder: Path) -> int:
    found = folder.glob(".scratch/student-*/checkpoint-*")
    return max((int(path.name.removeprefix("checkpoint-")) for path in found), default=0)


@pytest.mark.slow
def test_a_run_killed_in_the_middle_resumes_to_the_same_bits(tmp_path: Path) -> None:
    recipe = write(tmp_path, LONG)
    whole = attar.run(recipe, out=tmp_path / "whole", quiet=True)
    folder = tmp_path / "killed" / NAME
    process = forked.start("attar", "run", recipe, "--out", folder.parent, "--quiet")
    deadline = time.monotonic() + DEADLINE_S
    while newest_checkpoint(folder) < 20 and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.001)
    process.kill()
    assert process.wait(DEADLINE_S) == -signal.SIGKILL, "the run ended before it could be killed"
    assert 0 < newest_checkpoint(folder) < 100
    # What is there can be reported already, and is not taken for the whole.
    assert "teacher" in report_again(folder, quiet=True).read_text()
    status = json.loads(tiny_recipe.attar("status", folder, "--json").stdout)
    assert [step["state"] for step in status["steps"]] == ["done", "interrupted"]
    resumed = tiny_recipe.attar("resume", folder, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert "student: continuing after step " in resumed.stderr
    assert [step["reused"] for step in json.loads(resumed.stdout)["steps"]] == [True, False]
    ours, theirs = verify(folder / "student"), read_result(whole.folder / "student")
    name = "model/model.safetensors"
    assert ours.files[name] == theirs.files[name]


def test_every_shipped_recipe_has_no_mistake(repository: Path) -> None:
    recipes = sorted((repository / "recipes").glob("*.toml"))
    assert [load_recipe(path).name for path in recipes] == [path.stem for path in recipes]
    assert "demo" in [path.stem for path in recipes]
