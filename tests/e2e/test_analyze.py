"""An analyze step in a whole recipe, and the verb: made, reused, shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import attar
import tiny_recipe
from attar.artifacts import read_json, verify

pytestmark = pytest.mark.e2e

STUDENT = tiny_recipe.RECIPE.index("[steps.student]")
STUDIES = """
[steps.outliers]
run = "analyze"
model = "teacher"
data = "films"
criterion = "gamma_3sigma"
calibration = { examples = 16 }

[steps.cosine]
run = "analyze"
study = "site_cosine"
model = "teacher"
data = "films"
bits = 4
calibration = { examples = 16 }

[steps.report]
run = "report"
"""


def test_studies_of_a_recipe_are_made_reused_and_shown(tmp_path: Path) -> None:
    recipe = tiny_recipe.write(tmp_path, tiny_recipe.RECIPE[:STUDENT] + STUDIES)
    summary = attar.run(recipe, out=tmp_path / "runs", quiet=True)
    assert [step.name for step in summary.steps] == ["teacher", "outliers", "cosine", "report"]
    outliers = summary.metrics("outliers")["outliers"]
    assert len(outliers["encoder"]) == 5
    made = verify(summary.folder / "cosine")
    assert "study.json" in made.files
    assert read_json(summary.folder / "cosine" / "study.json")["facts"]["bits"] == 4
    page = (summary.folder / "report" / "index.html").read_text()
    assert '<section id="studies">' in page
    changed = ["steps.cosine.bits=8"]
    again = attar.run(recipe, overrides=changed, out=tmp_path / "runs", quiet=True)
    assert [step.name for step in again.steps if not step.reused] == ["cosine", "report"]


def test_the_verb_makes_one_study(tmp_path: Path) -> None:
    words = ["--model", "demo:minilm-l6", "--data", "stdlib_docs", "--out", tmp_path]
    settings = ["--set", "calibration.examples=16", "--set", 'criterion="activation_std"']
    done = tiny_recipe.attar("analyze", *words, *settings, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    [step] = json.loads(done.stdout)["steps"]
    found = step["metrics"]["outliers"]["encoder"]
    # Known of these weights: dimensions 63 and 99 stand out in block after block.
    assert all(99 in dimensions for dimensions in found.values())
    assert sum(63 in dimensions for dimensions in found.values()) >= 6
