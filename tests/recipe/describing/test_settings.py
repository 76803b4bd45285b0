"""What `attar explain`, `attar schema` and the settings reference say of the config classes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from attar import cli
from attar.data.config import DataConfig
from attar.errors import UsageError
from attar.losses.config import LossConfig
from attar.quantization.config import QuantizeStep
from attar.recipe.checking.mistakes import leaves
from attar.recipe.describing.json_schema import recipe_schema
from attar.recipe.describing.settings import Setting, Topic, explained, topics
from attar.recipe.steps import STEPS

RECIPES = sorted((Path(__file__).parents[3] / "recipes").rglob("*.toml"))
VALIDATOR = Draft202012Validator(recipe_schema())
MINIMAL: dict[str, Any] = {
    "name": "a",
    "data": {"docs": {"source": "stdlib_docs"}},
    "steps": {"teacher": {"run": "train", "model": "demo:minilm-l6", "data": "docs"}},
}


def _words(union: Any, tag: str) -> set[str]:
    return {get_args(form.model_fields[tag].annotation)[0] for form in leaves(union)}


def _settings(topic: Topic) -> Iterator[tuple[str, Setting]]:
    for setting in topic.settings:
        yield topic.word, setting
    for part in topic.parts:
        yield from _settings(part)


def test_every_step_source_loss_and_method_is_a_topic() -> None:
    known = set(topics())
    assert known >= set(STEPS)
    assert known >= _words(DataConfig, "source")
    assert known >= _words(LossConfig, "kind")
    assert known >= _words(QuantizeStep, "method")


def test_every_setting_has_a_meaning_and_values_in_words() -> None:
    for topic in topics().values():
        assert topic.meaning, topic.word
        for word, setting in _settings(topic):
            assert setting.meaning, f"{word}.{setting.name} has no docstring below its field"
            assert "None" not in setting.meaning, "TOML has no None"
            assert setting.values != "any value", f"{word}.{setting.name}"


def test_a_setting_has_its_bounds_its_default_and_its_docstring() -> None:
    [quantize] = explained("quantize")
    settings = {setting.name: setting for setting in quantize.settings}
    assert settings["weight_bits"].values == "integer ≥ 2 and ≤ 8"
    assert settings["weight_bits"].default == "default 8"
    assert settings["model"].default == "required"
    assert "percentile" in settings["method"].values
    assert [part.word for part in quantize.parts][:2] == ["quantize.calibration", "quantize.budget"]


def test_a_setting_that_several_tables_have_is_explained_for_each() -> None:
    found = explained("learning_rate")
    assert {"train", "proxy", "lsq"} <= {topic.word for topic in found}
    assert {setting.name for topic in found for setting in topic.settings} == {"learning_rate"}


def test_an_unknown_word_is_one_message_with_the_next_step() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'percentile'.*attar explain lists"):
        explained("percentle")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_schema_takes_every_shipped_recipe(path: Path) -> None:
    VALIDATOR.validate(tomllib.loads(path.read_text(encoding="utf-8")))


def test_the_schema_takes_false_where_toml_has_no_null_and_a_study_left_out() -> None:
    train = MINIMAL["steps"]["teacher"] | {"max_grad_norm": False}
    scores = {"run": "evaluate", "models": ["teacher"], "data": "docs", "speed": False}
    study = {"run": "analyze", "model": "teacher", "data": "docs", "criterion": "activation_std"}
    steps = {"teacher": train, "scores": scores, "outliers": study}
    VALIDATOR.validate(MINIMAL | {"steps": steps})


@pytest.mark.parametrize(
    "step",
    [
        {"run": "train", "model": "demo:minilm-l6", "data": "docs", "epoch": 1},
        {"run": "train", "data": "docs"},
        {"model": "demo:minilm-l6", "data": "docs"},
        {"run": "quantize", "model": "a", "calibration": {"data": "docs"}},
        {"run": "train", "model": "demo:minilm-l6", "data": "docs", "learning_rate": 0},
    ],
    ids=["unknown name", "no model", "no run", "no method", "out of bounds"],
)
def test_the_schema_refuses_what_a_check_refuses(step: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(MINIMAL | {"steps": {"a": step}})


def test_the_commands_print_the_list_a_topic_and_the_schema() -> None:
    run = CliRunner().invoke
    listed = run(cli.app, ["explain"]).stdout
    assert all(f"\n  {word} " in listed for word in STEPS)
    told = run(cli.app, ["explain", "percentile"]).stdout
    assert 'run = "quantize" and method = "percentile"' in told
    assert "choose_by" in told
    assert json.loads(run(cli.app, ["schema"]).stdout) == recipe_schema()
    assert json.loads(run(cli.app, ["explain", "fold", "--json"]).stdout)[0]["word"] == "fold"
