"""MiniLLM from a recipe to its page; the plan counts the operations that the run counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import corpora
import tiny_recipe
from attar.artifacts import read_result
from attar.recipe.load import load_recipe
from attar.recipe.plan import plan_recipe

RECIPE = (
    corpora.RECIPE.partition("[steps.by_teacher]")[0]
    + """
[steps.student]
run = "train"
model = "model"
teacher = "other"
data = "corpus"
max_length = 24
max_steps = 3
batch_size = 4
evaluations = 1
precision = "fp32"
losses = [{ kind = "policy_gradient", new_tokens = 4 }, { kind = "cross_entropy" }]

[steps.report]
run = "report"
"""
)


@pytest.mark.slow
@pytest.mark.e2e
def test_a_recipe_continues_texts_and_its_page_has_both_losses(tmp_path: Path) -> None:
    recipe = corpora.write_recipe(tmp_path, RECIPE)
    planned = {step.name: step for step in plan_recipe(load_recipe(recipe), tmp_path).steps}
    done = tiny_recipe.attar("run", recipe, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "selected"
    page = json.loads((run / "report" / "report.json").read_text())
    [training] = page["trainings"]
    assert {part["name"] for part in training["parts"]} == {"policy_gradient", "cross_entropy"}
    counted = read_result(run / "student").metrics["flops"]
    assert planned["student"].training is not None
    assert planned["student"].training.all == pytest.approx(counted, rel=0.25)
