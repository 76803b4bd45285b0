"""`check` refuses a model of a family that plan and run would refuse, where it can be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attar.errors import RecipeError
from attar.recipe.checking.families import ModelFamilies
from attar.recipe.load import parse_recipe

REFUSED = r"models of type 'xlm-roberta' are not supported \(did you mean 'roberta'\?\); supp"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "xlmr").mkdir()
    (tmp_path / "xlmr" / "config.json").write_text(json.dumps({"model_type": "xlm-roberta"}))
    return tmp_path


RECIPE = """
name = "r"
[data.d]
source = "files"
path = "d"
[steps.small]
run = "train"
model = {model}
data = "d"
[steps.int8]
run = "quantize"
method = "minmax"
model = "small"
calibration = {{ data = "d" }}
"""


@pytest.mark.parametrize("model", ['"xlmr"', '{ from = "xlmr", new_head = true }'])
def test_a_model_of_an_unknown_family_is_refused_by_check(folder: Path, model: str) -> None:
    with pytest.raises(RecipeError, match=rf"steps\.small\.model.*{REFUSED}"):
        parse_recipe(RECIPE.format(model=model), path=folder / "r.toml")


@pytest.mark.parametrize(
    ("steps", "word", "is_refused"),
    [
        ({}, "xlmr", True),
        ({}, "nowhere", False),
        ({}, "demo:minilm-l6", False),
        ({"a": {"model": "b"}, "b": {"model": "xlmr"}}, "a", True),
        ({"a": {"model": {"config": {"model_type": "xlm-roberta"}}}}, "a", True),
        ({"a": {"model": {"config": {"model_type": "bert"}}}}, "a", False),
        ({"a": {"model": "b"}, "b": {"model": "a"}}, "a", False),
        ({"a": {"model": 3}}, "a", False),
        ({}, "x" * 10_000, False),
    ],
)
def test_a_family_is_that_of_the_model_a_step_started_from(
    folder: Path, steps: dict[str, Any], word: str, is_refused: bool
) -> None:
    families = ModelFamilies(steps, folder)
    for _ in range(2):  # the second time from memory
        assert (families.problem(word) is not None) == is_refused


def test_a_damaged_config_is_left_to_the_step_that_reads_it(folder: Path) -> None:
    (folder / "xlmr" / "config.json").write_text("{")
    assert ModelFamilies({}, folder).problem("xlmr") is None
