"""What a plan says of training on chunks is what the run does: exactly where the chunks are there
or all documents were looked at, and marked where not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import corpora
from attar.artifacts import read_result
from attar.errors import AttarError, ModelError, UsageError
from attar.recipe.load import load_recipe
from attar.recipe.plan import Plan, plan_recipe
from attar.recipe.run import run_recipe
from attar.step import StepPlan

REFERENCE = """
[steps.reference]
run = "train"
model = "other"
data = "corpus"
part = "reserved"
max_tokens = 1500
batch_tokens = 72
max_length = 24
evaluations = 1
precision = "fp32"
"""
ONE_SOURCE = 'source_column = "source"\n'


def _recipe(folder: Path, *, one_source: bool) -> Path:
    text = corpora.RECIPE.partition("[steps.scores]")[0].replace("max_steps = 3", "epochs = 0.2")
    text = text.replace(ONE_SOURCE, "") if one_source else text
    return corpora.write_recipe(folder, text + REFERENCE)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The recipe, and the folder of its run."""
    folder = tmp_path_factory.mktemp("planned")
    recipe = _recipe(folder, one_source=True)
    return recipe, run_recipe(recipe, out=folder / "runs", quiet=True).folder


def _steps(recipe: Path, made: dict[str, Path] | None = None) -> tuple[Plan, dict[str, StepPlan]]:
    plan = plan_recipe(load_recipe(recipe), recipe.parent, made=made)
    return plan, {step.name: step for step in plan.steps}


def _require_equal(step: StepPlan, run: Path) -> None:
    metrics = read_result(run / step.name).metrics
    assert step.counts["data.train_rows"] == metrics["data"]["train_rows"]
    assert step.counts["steps"] == metrics["steps"]
    assert step.counts["num_params"] == metrics["num_params"]
    assert step.passes == pytest.approx(metrics["epochs"], abs=1e-4)


def test_chunks_of_one_source_are_counted_before_there_are_any(ran: tuple[Path, Path]) -> None:
    recipe, run = ran
    _, steps = _steps(recipe)
    _require_equal(steps["reference"], run)
    assert not steps["reference"].is_estimate
    assert steps["kept"].counts == {}


def test_chunks_that_are_there_are_counted_exactly(ran: tuple[Path, Path]) -> None:
    recipe, run = ran
    (recipe.parent / "texts" / "train.jsonl").rename(recipe.parent / "moved")
    (recipe.parent / "texts" / "train.jsonl").write_text("no json\n")  # none of it is read
    try:
        plan, steps = _steps(recipe, {name: run / name for name in ("corpus", "kept")})
    finally:
        (recipe.parent / "moved").replace(recipe.parent / "texts" / "train.jsonl")
    for name in ("reference", "student"):
        _require_equal(steps[name], run)
        assert not steps[name].is_estimate
    assert "≈" not in plan.text()
    worked = read_result(run / "reference").metrics["flops"]
    assert steps["reference"].flops > worked > steps["reference"].flops_without_head


@pytest.mark.parametrize(
    ("setting", "kind", "said"),
    [
        ("steps.student.max_length=16", UsageError, "student: 'kept'.*set max_length = 24"),
        ('steps.student.model="bytes"', ModelError, 'student: .* from = "kept", retokenize = true'),
    ],
)
def test_chunks_that_the_step_would_refuse_are_refused_before_anything_runs(
    ran: tuple[Path, Path], setting: str, kind: type[AttarError], said: str
) -> None:
    recipe, _ = ran
    folder = corpora.write_model(recipe.parent / "bytes")
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["merges"].clear()
    (folder / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(kind, match=said):
        plan_recipe(load_recipe(recipe, [setting]), recipe.parent)


def test_what_is_estimated_is_marked(ran: tuple[Path, Path], tmp_path: Path) -> None:
    plan, steps = _steps(_recipe(tmp_path, one_source=False))
    assert steps["student"].is_estimate
    assert steps["reference"].is_estimate
    assert "≈" in plan.text()
    found = read_result(ran[1] / "reference").metrics["data"]["train_rows"]
    assert steps["reference"].counts["data.train_rows"] == pytest.approx(found, rel=0.2)


def test_texts_packed_again_are_estimated(ran: tuple[Path, Path], tmp_path: Path) -> None:
    text = corpora.RECIPE.partition("[steps.scores]")[0]
    again = 'data = { from = "kept", retokenize = true }'
    recipe = corpora.write_recipe(tmp_path, text.replace('data = "kept"', again))
    _, steps = _steps(recipe)
    assert steps["student"].is_estimate
    rows = read_result(ran[1] / "student").metrics["data"]["train_rows"]
    assert steps["student"].counts["data.train_rows"] == pytest.approx(rows, rel=0.4)


def test_operations_without_the_head_are_told_for_language_models_alone(
    ran: tuple[Path, Path],
) -> None:
    plan, steps = _steps(ran[0])
    assert steps["student"].flops_without_head is not None
    assert "note: student: " in plan.text()
    assert all(steps[name].flops_without_head is None for name in ("corpus", "kept"))
