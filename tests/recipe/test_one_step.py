"""A verb's flags become a recipe: nothing of them is lost, and each override finds its table."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.errors import RecipeError, UsageError
from attar.recipe import one_step
from attar.recipe.load import parse_recipe
from attar.recipe.one_step import data_table, recipe_text, run_one_step
from attar.recipe.running.saved import Source
from attar.recipe.schema import Recipe
from attar.recipe.steps import as_table

VERBS: dict[str, dict[str, Any]] = {
    "train": {"model": "demo:minilm-l6", "data": "stdlib_docs", "epochs": 1e-5, "batch_size": 4},
    "analyze": {"model": "demo:minilm-l6", "data": "stdlib_docs", "study": "site_cosine"},
    "quantize": {
        "model": "MODEL",
        "method": "minmax",
        "weight_bits": 4,
        "calibration": {"data": "stdlib_docs", "examples": 8},
    },
    "export": {"model": "MODEL", "data": None, "format": "onnxruntime"},
    "evaluate": {"models": ["MODEL", "films"], "data": "glue:mrpc"},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model and data to name."""
    (tmp_path / "MODEL").mkdir()
    (tmp_path / "films").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, Source, Path]]:
    """What would be run, and where; nothing is."""
    calls: list[tuple[Recipe, Source, Path]] = []
    monkeypatch.setattr(one_step, "run_resolved", lambda *given, **_: calls.append(given))
    return calls


def without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if value is not None}


@pytest.mark.parametrize("verb", VERBS)
def test_the_text_of_a_verb_is_a_recipe_with_the_same_settings(verb: str) -> None:
    settings = VERBS[verb]
    recipe = parse_recipe(recipe_text(verb, settings))
    assert list(recipe.steps) == [verb]
    table = as_table(recipe.steps[verb])
    assert table["run"] == verb
    for name, value in without_none(settings).items():
        if name == "calibration":
            assert table[name]["data"] == "texts"
            assert table[name]["examples"] == value["examples"]
        else:
            assert table[name] == ("texts" if name == "data" else value)
    assert set(recipe.data) == ({"texts"} if verb != "export" else set())


words = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.floats() | st.integers(-(2**53), 2**53)


@given(model=words, word=words, models=st.lists(words), number=numbers)
def test_no_word_or_number_is_changed_on_its_way_through_the_text(
    model: str, word: str, models: list[str], number: float
) -> None:
    settings = {"model": model, "teacher": None, "models": models, "epochs": number, "data": word}
    content = tomllib.loads(recipe_text("train", settings))
    step = content["steps"]["train"]
    assert "teacher" not in step
    assert (step["model"], step["models"]) == (model, models)
    assert repr(step["epochs"]) == repr(number)  # nan is nan, and -0.0 is not 0.0
    assert content["data"]["texts"] == data_table(word)


@pytest.mark.parametrize(
    ("word", "table"),
    [
        ("stdlib_docs", {"source": "stdlib_docs"}),
        ("glue:sst2", {"source": "glue", "task": "sst2"}),
        ("glue:sst2@a@b", {"source": "glue", "task": "sst2", "path": "a@b"}),
        ("files:stdlib_docs", {"source": "files", "path": "stdlib_docs"}),
        ("C:questions", {"source": "files", "path": "C:questions"}),
        ("my/glue", {"source": "files", "path": "my/glue"}),
    ],
)
def test_a_data_word_names_a_source(word: str, table: dict[str, str]) -> None:
    assert data_table(word) == table


def test_an_override_reaches_the_step_the_data_or_the_whole_recipe(
    asked: list[tuple[Recipe, Source, Path]], folder: Path
) -> None:
    settings = {"model": "MODEL", "data": "films", "epochs": None}
    overrides = [
        "max_steps=2",
        "data.text=sentence",
        "seed=7",
        "steps.train.keep=last",
        'losses=[{ kind = "cross_entropy", weight = 2.0 }]',
    ]
    run_one_step("train", settings, overrides, None)
    [(recipe, source, place)] = asked
    step, data = as_table(recipe.steps["train"]), recipe.data["texts"].model_dump()
    assert (step["max_steps"], step["keep"], step["seed"]) == (2, "last", None)
    assert step["losses"][0]["weight"] == 2
    assert (recipe.seed, data["path"], data["text"]) == (7, "films", "sentence")
    assert source.recipe_folder == folder
    assert place.parent == Path("runs")


def test_another_setting_is_another_folder_and_the_same_one_is_the_same(
    asked: list[tuple[Recipe, Source, Path]], folder: Path
) -> None:
    settings = {"model": "MODEL", "data": "films"}
    for changed, overrides in (
        ({}, []),
        ({}, []),
        ({"epochs": 2.0}, []),
        ({}, ["seed=1"]),
        ({"data": "stdlib_docs"}, []),
    ):
        run_one_step("train", {**settings, **changed}, overrides, folder / "elsewhere")
    places = [place for *_, place in asked]
    assert {place.parent for place in places} == {folder / "elsewhere"}
    assert places[0] == places[1]
    assert len(set(places)) == 4


def test_what_is_saved_with_the_run_is_the_recipe_that_ran(
    asked: list[tuple[Recipe, Source, Path]],
) -> None:
    run_one_step("evaluate", {"models": ["MODEL"], "data": "films"}, ["bootstrap=100"], None)
    [(recipe, source, _)] = asked
    assert source.text is not None
    assert parse_recipe(source.text, source.overrides) == recipe


def test_mistakes_of_flags_name_the_verb_and_no_file_or_line_that_nobody_wrote() -> None:
    settings = {"model": "MODEL", "data": "films", "epochs": -1.0, "batch_size": -1}
    with pytest.raises(RecipeError) as caught:
        run_one_step("train", settings, ["lerning_rate=1"], None)
    message = str(caught.value)
    assert message.startswith("attar train: 3 mistakes")
    assert "steps.train.batch_size: should be greater than 0, got -1" in message
    assert "did you mean 'learning_rate'?" in message
    assert "(line" not in message
    with pytest.raises(RecipeError, match=r"steps\.train\.epochs: nan is not a finite number"):
        run_one_step("train", {**settings, "epochs": math.nan}, [], None)
    with pytest.raises(UsageError, match="'epochs' has no value; write --set name=value"):
        run_one_step("train", settings, ["epochs"], None)
    assert not Path("runs").exists()


def test_json_of_a_text_with_every_control_character_survives() -> None:
    every = "".join(map(chr, range(0x80))) + "é\u2028😀"
    content = tomllib.loads(recipe_text("train", {"model": every}))
    assert content["steps"]["train"]["model"] == every
    assert json.dumps(every)  # the same characters JSON can say
