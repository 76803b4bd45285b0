"""The business recipes: their data can be made, they pass a check, and one runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from tiny_recipe import attar

BUSINESS = Path(__file__).parents[2] / "recipes" / "business"
SUPPORT = BUSINESS.parent / "support_messages.toml"
RECIPES = sorted(path.stem for path in (*BUSINESS.glob("*.toml"), SUPPORT))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes with the data that the script makes beside them, as in the repository."""
    folder = tmp_path_factory.mktemp("business")
    for recipe in (*BUSINESS.glob("*.toml"), SUPPORT):
        shutil.copy(recipe, folder)
    tiny.write_tiny_bert(folder / "bert", num_labels=3)
    for program, made in (
        (BUSINESS / "make_data.py", "data"),
        (SUPPORT.with_suffix(".py"), SUPPORT.stem),
    ):
        script = [sys.executable, str(program), str(folder / made)]
        subprocess.run(script, check=True, capture_output=True)
    raw = folder / SUPPORT.stem / "raw.csv"  # 20,000 rows, of which a test needs a few
    raw.write_text("".join(raw.read_text().splitlines(keepends=True)[:301]))
    return folder


def test_equal_seeds_make_equal_data(shop: Path, tmp_path: Path) -> None:
    script = [sys.executable, BUSINESS / "make_data.py", tmp_path]
    subprocess.run([str(word) for word in script], check=True, capture_output=True)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.csv"))
    assert len(files) == 4
    for file in files:
        assert (tmp_path / file).read_bytes() == (shop / "data" / file).read_bytes()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_passes_the_check(shop: Path, name: str) -> None:
    found = attar("check", shop / SUPPORT.name)
    assert found.returncode == 0, found.stderr


def test_support_messages_run_to_their_report(shop: Path) -> None:
    """On a tiny model, whose gates are not looked at."""
    learners = ["teacher", "student", "labelled_only"]
    parity = "{ examples = 16, max_relative_error = 100.0, max_label_flips = 1.0 }"
    changes = {
        "gates": "[]",
        "data.messages.train_rows": 64,
        "data.messages.validation_rows": 48,
        "steps.teacher.model": '{ from = "bert", new_head = true }',
        **{f"steps.{step}.model.keep_blocks": "[1]" for step in learners[1:]},
        **{f"steps.{step}.max_steps": 2 for step in learners},
        **{f"steps.{step}.precision": '"fp32"' for step in learners},  # not measured
        "steps.int8.calibration.examples": 16,
        "steps.deploy.parity": parity,
        "steps.scores.memory": "false",
        "steps.scores.bootstrap": 100,
        "steps.scores.speed": "{ tokens = 16, batch_sizes = [1], rounds = 3, calls = 1 }",
    }
    words = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    done = attar("run", shop / SUPPORT.name, "--out", shop / "runs", "--json", *words)
    assert done.returncode == 0, done.stderr
    run = shop / "runs" / SUPPORT.stem
    assert (run / "report" / "index.html").is_file()
    result = json.loads((run / "scores" / "result.json").read_text())
    assert {*learners, "int8", "deploy"} == set(result["metrics"]["models"])
