"""What a plan says of training on chunks is what the run does: exactly where the chunks are there
or all documents were looked at, and marked where not."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import corpora
from attar.artifacts import read_result
from attar.errors import AttarError, ModelError, UsageError
from attar.recipe.keys import keys_of
from attar.recipe.load import load_recipe
from attar.recipe.plan import Plan, plan_recipe
from attar.recipe.run import run_recipe
from attar.recipe.running.intents import Intent, intents_in
from attar.step import CountedFlops, StepPlan

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
MATCHED = """
[steps.taught]
run = "train"
model = "model"
teacher = "other"
data = "kept"
match_flops = "reference"
batch_size = 4
max_length = 24
evaluations = 1
evaluate_at_tokens = [100, 1000000]
precision = "fp32"
"""
ONE_SOURCE = 'source_column = "source"\n'


def _recipe(folder: Path, *, one_source: bool) -> Path:
    text = corpora.RECIPE.partition("[steps.scores]")[0].replace("max_steps = 3", "epochs = 0.2")
    text = text.replace(ONE_SOURCE, "") if one_source else text
    return corpora.write_recipe(folder, text + REFERENCE + MATCHED)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The recipe, and the folder of its run."""
    folder = tmp_path_factory.mktemp("planned")
    recipe = _recipe(folder, one_source=True)
    return recipe, run_recipe(recipe, out=folder / "runs", quiet=True).folder


def _steps(recipe: Path, intents: Sequence[Intent] = ()) -> tuple[Plan, dict[str, StepPlan]]:
    plan = plan_recipe(load_recipe(recipe), recipe.parent, intents=intents)
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
        plan, steps = _steps(
            recipe, [Intent(name, "reuse", run / name) for name in ("corpus", "kept")]
        )
    finally:
        (recipe.parent / "moved").replace(recipe.parent / "texts" / "train.jsonl")
    for name in ("reference", "student", "taught"):
        _require_equal(steps[name], run)
        assert not steps[name].is_estimate
    assert "≈" not in plan.text()
    worked, training = read_result(run / "reference").metrics, steps["reference"].training
    assert training == CountedFlops(worked["flops"], worked["flops_non_embedding"])
    assert steps["reference"].flops > training.all > training.non_embedding


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


def test_a_matched_step_trains_as_long_as_its_plan_says(ran: tuple[Path, Path]) -> None:
    recipe, run = ran
    plan, steps = _steps(recipe, [Intent(name, "reuse", run / name) for name in ("corpus", "kept")])
    found, paid = (read_result(run / name).metrics for name in ("taught", "reference"))
    assert found["matched"]["steps"] == found["steps"] == steps["taught"].counts["steps"]
    one = found["flops"] / found["steps"]
    assert (
        found["flops"] <= paid["flops"] == found["matched"]["budget"] < found["flops"] + 1.5 * one
    )
    assert 0.6 < found["tokens"] / paid["tokens"] < 0.85  # 3 passes of 4, which the head makes more
    assert steps["taught"].note in plan.text()
    assert f"taught: {found['steps']} steps, for the" in plan.text()
    assert [line["tokens"] for line in _evaluations(run / "taught")][-1] == found["tokens"]


def _evaluations(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [line for line in lines if "validation" in line]


def test_what_a_step_is_matched_with_is_part_of_its_key(ran: tuple[Path, Path]) -> None:
    def keys(*changes: str) -> dict[str, str]:
        recipe = load_recipe(ran[0], changes)
        found = keys_of(recipe, recipe.order, ran[0].parent)
        return {name: each.key for name, each in found.items()}

    before, after = keys(), keys("steps.reference.max_tokens=1600")
    assert {name for name in before if before[name] != after[name]} == {"reference", "taught"}
    assert before["taught"] != keys('steps.taught.count_flops="non_embedding"')["taught"]


def test_a_plan_counts_training_as_papers_do_and_what_was_done_offline(
    ran: tuple[Path, Path],
) -> None:
    """`reference` is a train step here and no select step's reference; both students share the
    scores, by models from outside the recipe."""
    plan, steps = _steps(ran[0])
    heading = plan.text().splitlines()[0]
    assert all(word in heading for word in ("TFLOP", "training", "by 6·N", "offline"))
    scoring = steps["by_teacher"].flops + steps["by_reference"].flops
    assert set(plan.offline) == {"student", "taught"}
    assert plan.offline["taught"].total == scoring
    assert plan.offline["student"].share == scoring / 2


def test_a_plan_says_which_steps_are_there(ran: tuple[Path, Path]) -> None:
    recipe, run = ran

    def found(*changes: str) -> tuple[Intent, ...]:
        return intents_in(run, load_recipe(recipe, changes), recipe.parent)

    steps = load_recipe(recipe).steps
    assert [intent.action for intent in found()] == ["reuse"] * len(steps)
    plan, _ = _steps(recipe, found("steps.reference.max_tokens=1600"))
    assert plan.made == set(steps) - {"reference", "taught"}
    assert [step.name for step in plan.missing] == ["reference", "taught"]
    assert plan.seconds == sum(step.seconds for step in plan.missing)
    assert f"for the 2 of {len(steps)} steps not made yet" in plan.text()
    assert plan.as_json()["actions"]["reference"]["action"] == "replace"
    assert re.search("reference +replace  max_tokens 1500 → 1600", plan.text())
    none = intents_in(run.with_name("none"), load_recipe(recipe), recipe.parent)
    assert {intent.action for intent in none} == {"make"}


def test_a_references_training_counts_before_a_selection_and_a_teachers_does_not(
    tmp_path: Path,
) -> None:
    text = corpora.RECIPE.partition("[steps.scores]")[0] + REFERENCE
    text = text.replace('model = "other"\ndata', 'model = "reference"\ndata', 1)
    by_reference = text.index("[steps.by_reference]")
    taught = REFERENCE.replace("steps.reference", "steps.teacher")
    text = text[:by_reference].replace('model = "model"', 'model = "teacher"') + text[by_reference:]
    _, steps = _steps(corpora.write_recipe(tmp_path, text + taught))
    plan = plan_recipe(load_recipe(tmp_path / "selected.toml"), tmp_path)
    behind = ("by_teacher", "by_reference", "reference")
    assert plan.offline["student"].total == sum(steps[name].flops for name in behind)
    assert set(plan.offline) == {"student"}
