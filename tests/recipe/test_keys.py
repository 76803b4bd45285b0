"""The same key if and only if the same artifact would be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attar.errors import DataError
from attar.recipe.keys import Fingerprints, keys_of, step_seed
from attar.recipe.load import parse_recipe
from attar.recipe.steps import STEPS
from engine_steps import FINGERPRINTS, RECIPE


def keys(text: str = RECIPE, fingerprints: Fingerprints = FINGERPRINTS) -> dict[str, str]:
    recipe = parse_recipe(text)
    found = keys_of(recipe, recipe.order, Path(), fingerprints=fingerprints)
    return {name: step.key for name, step in found.items()}


def differing(text: str = RECIPE, fingerprints: Fingerprints = FINGERPRINTS) -> set[str]:
    """Steps whose key is not that of the unchanged recipe."""
    before, after = keys(), keys(text, fingerprints)
    return {name for name in after if before.get(name) != after[name]}


ALL = {"teacher", "student", "int8", "scores", "report"}


def test_keys_are_the_same_every_time() -> None:
    assert keys() == keys()
    assert len(set(keys().values())) == 5


def test_a_setting_changes_its_step_and_everything_after_it() -> None:
    text = RECIPE.replace('method = "minmax"', 'method = "minmax"\nweight_bits = 4')
    assert differing(text) == {"int8", "scores", "report"}


def test_a_default_written_out_changes_nothing() -> None:
    text = RECIPE.replace('method = "minmax"', 'method = "minmax"\nweight_bits = 8')
    assert differing(text) == set()


def test_the_seed_of_the_recipe_counts_as_the_seed_of_its_steps() -> None:
    assert differing(RECIPE.replace("seed = 3", "seed = 4")) == ALL
    own = RECIPE.replace('run = "train"', 'run = "train"\nseed = 3')
    assert differing(own) <= {"report"}


def test_a_step_whose_own_seed_is_zero_has_another_key() -> None:
    """Zero is a seed, not "none given"."""
    own = RECIPE.replace('model = "demo:minilm-l6"', 'model = "demo:minilm-l6"\nseed = 0')
    assert differing(own) == ALL
    assert step_seed(parse_recipe(own).steps["teacher"], 3) == 0


FILES = '[data.docs]\nsource = "files"\npath = "here"\n'


@pytest.mark.parametrize(
    "setting",
    [
        *("train_rows = 10", "rows_seed = 0", "validation_rows = 10", "max_set_aside = 0.5"),
        *('text = "sentence"', 'text = ["a", "b"]', 'label = "class"', 'objective = "regression"'),
    ],
)
def test_every_setting_of_the_data_counts(setting: str) -> None:
    """The same files read otherwise are other rows."""
    plain = RECIPE.replace('[data.docs]\nsource = "stdlib_docs"\n', FILES)
    assert plain != RECIPE
    before, after = keys(plain), keys(plain.replace(FILES, f"{FILES}{setting}\n"))
    assert {name for name in ALL if before[name] != after[name]} == ALL


def test_renaming_a_step_matters_only_where_names_are_repeated() -> None:
    text = RECIPE.replace('"student"', '"pupil"').replace("steps.student", "steps.pupil")
    before, after = keys(), keys(text)
    assert after["pupil"] == before["student"]
    assert after["int8"] == before["int8"]
    assert after["scores"] != before["scores"]


HISTOGRAMS = """
[steps.tails]
run = "analyze"
study = "histograms"
model = "student"
compare_with = "teacher"
"""


def test_a_study_of_two_models_repeats_their_names() -> None:
    text = RECIPE + HISTOGRAMS
    renamed = text.replace('"student"', '"pupil"').replace("steps.student", "steps.pupil")
    assert keys(renamed)["tails"] != keys(text)["tails"]


def test_the_order_of_compared_models_counts() -> None:
    text = RECIPE.replace('["teacher", "student", "int8"]', '["int8", "student", "teacher"]')
    assert differing(text) == {"scores", "report"}


def test_content_of_data_counts_and_its_place_does_not() -> None:
    prints = replace(FINGERPRINTS, data=lambda config, folder: "other rows")
    assert differing(fingerprints=prints) == ALL
    files = '[data.docs]\nsource = "files"\npath = "here"'
    here = keys(RECIPE.replace('[data.docs]\nsource = "stdlib_docs"', files))
    there = keys(
        RECIPE.replace('[data.docs]\nsource = "stdlib_docs"', files.replace("here", "a/b"))
    )
    assert {name for name in here if here[name] != there[name]} == {"report"}


def test_a_model_outside_the_recipe_counts_by_its_content() -> None:
    prints = replace(FINGERPRINTS, model=lambda word, folder: "other weights")
    assert differing(fingerprints=prints) == ALL


def test_which_word_is_the_model_and_which_the_teacher_counts() -> None:
    two = RECIPE.replace(
        "[steps.student]",
        '[steps.other]\nrun="train"\nmodel="demo:minilm-l6"\ndata="docs"\nseed=9\n[steps.student]',
    )
    one_way = two.replace('"teacher", keep', '"other", keep')
    other_way = two.replace('teacher = "teacher"', 'teacher = "other"')
    assert keys(one_way)["student"] != keys(other_way)["student"]


def test_data_that_cannot_be_read_is_found_before_anything_runs() -> None:
    def missing(config: object, folder: Path) -> str:
        raise DataError("data 'docs' is not there")

    with pytest.raises(DataError):
        keys(fingerprints=replace(FINGERPRINTS, data=missing))


def test_a_new_version_of_a_steps_code_changes_its_key_and_those_after_it() -> None:
    recipe = parse_recipe(RECIPE)
    newer = {**STEPS, "quantize": replace(STEPS["quantize"], version=STEPS["quantize"].version + 1)}
    after = keys_of(recipe, recipe.order, Path(), kinds=newer, fingerprints=FINGERPRINTS)
    assert {name for name in after if after[name].key != keys()[name]} == {
        "int8",
        "scores",
        "report",
    }
