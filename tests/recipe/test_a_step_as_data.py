"""A step that makes rows stands where a recipe names data: arrows, keys, sweeps, reuse, plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
import training_runs
from attar.distillation.config import AugmentMetrics
from attar.errors import DataError, RecipeError
from attar.recipe.keys import keys_of
from attar.recipe.load import parse_recipe
from attar.recipe.outcome.sweep import expand
from attar.recipe.plan import plan_recipe
from attar.recipe.run import resume_run, run_recipe
from attar.recipe.running.saved import read_saved
from attar.recipe.schema import Recipe
from engine_steps import FINGERPRINTS

COPIES = 2
RECIPE = """
name = "small"
seed = 3
[data.films]
source = "files"
path = "films"
text = "text"
train_rows = 40
[steps.learn]
run = "train"
model = "bert"
data = "more"
max_steps = 2
max_length = 24
evaluations = 1
precision = "fp32"
[steps.more]
run = "augment"
model = "lm"
data = "films"
copies = 2
top = 5
max_length = 24
keep_labels = true
precision = "fp32"
[steps.int8]
run = "quantize"
model = "learn"
method = "minmax"
calibration = { data = "more", examples = 50 }
[steps.deploy]
run = "export"
model = "int8"
format = "safetensors"
parity = { examples = 8 }
[steps.scores]
run = "evaluate"
models = ["learn"]
data = "more"
speed = false
memory = false
"""
OLD = RECIPE.replace('data = "more"\nmax_steps', 'data = "films"\naugmentation = "more"\nmax_steps')


def keys(recipe: Recipe) -> dict[str, str]:
    found = keys_of(recipe, recipe.order, Path(), fingerprints=FINGERPRINTS)
    return {name: step.key for name, step in found.items()}


def test_a_step_comes_after_the_step_whose_rows_it_reads() -> None:
    assert parse_recipe(RECIPE).order == ["more", "learn", "int8", "deploy", "scores"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("steps.learn.data=mor", r"no \[data.mor\] \(did you mean 'more'\?\); .* films, more"),
        ("steps.more.data=learn", "step 'learn' runs 'train' and makes no rows; .* runs 'augment'"),
        ("steps.more.data=more", "cycle.*more → more"),
        (
            'sweep={ steps = ["learn"], data = ["films", "more"] }',
            "'data' names a step, and references",
        ),
        ('sweep={ steps = ["more"], data = ["films", "none"] }', r"no \[data.none\]"),
    ],
)
def test_a_data_word_must_lead_to_rows(change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(RECIPE, [change])


def test_a_step_that_makes_rows_and_a_data_table_have_different_names() -> None:
    with pytest.raises(RecipeError, match=r"steps.more.*\[data.more\] has this name too"):
        parse_recipe(RECIPE + '[data.more]\nsource = "stdlib_docs"\n')


def test_what_made_the_rows_counts_in_the_key_and_its_name_does_not() -> None:
    before, other = (keys(parse_recipe(RECIPE, given)) for given in ([], ["steps.more.copies=3"]))
    assert {name for name in before if before[name] != other[name]} == set(before)
    renamed = keys(parse_recipe(RECIPE.replace("more", "extra")))
    assert [renamed[name] for name in ("extra", "learn", "int8")] == [
        before[name] for name in ("more", "learn", "int8")
    ]


def test_a_sweep_multiplies_the_readers_of_rows_too() -> None:
    recipe = parse_recipe(RECIPE, ['sweep={ steps = ["more"], copies = [1, 2] }'])
    steps = expand(recipe).recipe.steps
    assert steps["learn@copies=2"].model_dump()["data"] == "more@copies=2"
    assert steps["int8@copies=1"].model_dump()["calibration"]["data"] == "more@copies=1"


def test_the_old_spelling_means_the_same() -> None:
    assert keys(parse_recipe(OLD)) == keys(parse_recipe(RECIPE))
    other = OLD + '[data.others]\nsource = "stdlib_docs"\n'
    with pytest.raises(RecipeError, match=r"'more' makes rows of data 'others', .* reads 'films'"):
        parse_recipe(other, ["steps.more.data=others"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the recipe, by `attar run`'s own function."""
    place = training_runs.prepare(tmp_path_factory.mktemp("rows"))
    tiny.write_tiny_masked_lm(place / "lm")
    (place / "recipe.toml").write_text(RECIPE)
    run_recipe(place / "recipe.toml", out=place / "runs", quiet=True)
    return place / "runs" / "small"


def metrics(run: Path, step: str) -> dict[str, object]:
    return json.loads((run / step / "result.json").read_text())["metrics"]


def test_every_reader_reads_the_source_rows_and_the_made_rows(run: Path) -> None:
    assert metrics(run, "more")["rows_out"] == 40 * COPIES
    assert set(metrics(run, "more")) == set(AugmentMetrics.__annotations__)
    learned = metrics(run, "learn")["data"]
    assert isinstance(learned, dict)
    assert (learned["name"], learned["train_rows"]) == ("films", 40 * (1 + COPIES))
    scored = metrics(run, "scores")["models"]
    assert isinstance(scored, dict)
    assert scored["learn"]["accuracy"]["n"] == 24  # nothing is made of the validation split
    result = json.loads((run / "int8" / "result.json").read_text())
    assert list(result["inputs"]) == ["learn", "more"]


def test_a_second_run_reuses_all_and_so_does_a_folder_of_the_old_spelling(run: Path) -> None:
    saved = json.loads((run / "recipe.json").read_text())
    saved["recipe"]["steps"]["learn"] |= {"data": "films", "augmentation": "more"}
    saved["recipe"]["steps"]["more"] |= {"augmentation": None}
    (run / "recipe.json").write_text(json.dumps(saved))
    assert read_saved(run).recipe == parse_recipe(RECIPE)
    assert all(step.reused for step in resume_run(run, quiet=True).steps)


def test_the_rows_are_those_that_the_step_drew_whatever_the_seed_of_the_reader(run: Path) -> None:
    place = run.parent.parent
    again = place / "again.toml"
    again.write_text(RECIPE)
    summary = run_recipe(again, out=place / "runs", overrides=["steps.learn.seed=8"], quiet=True)
    made = {step.name: step.reused for step in summary.steps}
    assert (made["more"], made["learn"]) == (True, False)


def test_the_plan_counts_made_rows_with_their_sources(run: Path) -> None:
    place = run.parent.parent
    plan_recipe(parse_recipe(RECIPE, ["steps.int8.calibration.examples=120"]), place)
    with pytest.raises(DataError, match="40"):
        plan_recipe(parse_recipe(RECIPE, ["steps.int8.calibration.data=films"]), place)
