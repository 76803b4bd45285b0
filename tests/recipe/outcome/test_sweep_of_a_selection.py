"""MiniPLM's ablations are sweeps: over what is kept, and over the size of a model that scores; and
less text is read more often when the budget stays."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpora
from attar.artifacts import read_result
from attar.recipe.load import load_recipe
from attar.recipe.outcome.sweep import expand
from attar.recipe.plan import plan_recipe
from attar.recipe.run import run_recipe
from attar.recipe.running.intents import Intent

TINY = "{ hidden_size = 16, intermediate_size = 16, num_hidden_layers = 1 }"
RECIPE = f"""
name = "ablation"
[data.texts]
source = "files"
path = "texts"
text = "text"
objective = "causal_lm"
[steps.corpus]
run = "tokenize"
data = "texts"
tokenizer = "model"
max_length = 24
reserve = 0.5
[steps.reference]
run = "train"
model = {{ size = "pico", family = "llama", tokenizer = "corpus", config = {TINY} }}
data = "corpus"
part = "reserved"
max_length = 24
max_steps = 1
batch_size = 4
evaluations = 1
precision = "fp32"
[steps.by_teacher]
run = "score"
model = "model"
data = "corpus"
[steps.by_reference]
run = "score"
model = "reference"
data = "corpus"
[steps.kept]
run = "select"
data = "corpus"
teacher = "by_teacher"
reference = "by_reference"
minimum_tokens = 1
[steps.student]
run = "train"
model = "model"
data = "kept"
max_length = 24
max_tokens = 900
batch_size = 4
evaluations = 1
precision = "fp32"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpora.write_documents(tmp_path / "texts", count=40)
    corpora.write_model(tmp_path / "model")
    return tmp_path


def write(folder: Path, sweep: str) -> Path:
    recipe = folder / "ablation.toml"
    recipe.write_text(f"{RECIPE}[sweep]\n{sweep}\n")
    return recipe


def test_a_smaller_share_is_read_more_often_as_planned(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.planning.measured_flops_per_s", lambda *asked: 1e9)
    recipe = write(folder, 'steps = ["kept"]\nkeep = [0.2, 1.0]')
    runs = run_recipe(recipe, out=folder / "runs", quiet=True).folder
    made = [Intent("corpus", "reuse", runs / "corpus")]
    plan = plan_recipe(expand(load_recipe(recipe)).recipe, folder, intents=made)
    passes = {step.name: step.passes for step in plan.steps}
    found = {}
    for share in ("0.2", "1.0"):
        kept, student = (
            read_result(runs / f"{s}@keep={share}").metrics for s in ("kept", "student")
        )
        found[share] = student["epochs"]
        assert student["data"]["train_rows"] == kept["kept"]
        assert passes[f"student@keep={share}"] == pytest.approx(student["epochs"], rel=0.05)
    assert found["0.2"] > 4 * found["1.0"] > 0
    assert (runs / "reference").exists()
    assert not list(runs.glob("reference@*"))


def test_the_size_of_a_scoring_model_is_a_sweep(folder: Path) -> None:
    recipe = write(folder, 'steps = ["reference"]\n"model.size" = ["pico", "nano"]')
    expanded = expand(load_recipe(recipe)).recipe.steps
    for size in ("pico", "nano"):
        assert expanded[f"reference@model.size={size}"].model.size == size
        assert expanded[f"by_reference@model.size={size}"].model == f"reference@model.size={size}"
        assert expanded[f"student@model.size={size}"].data == f"kept@model.size={size}"
    assert "by_teacher" in expanded
