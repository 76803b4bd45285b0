"""`check` refuses a model of a family that plan and run would refuse, where it can be known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from attar.errors import RecipeError
from attar.recipe.checking.relations import ModelFamilies
from attar.recipe.load import parse_recipe

REFUSED = r"structure of models of type 'albert', .*but not pruned, .*works for: bert, "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "albert").mkdir()
    (tmp_path / "albert" / "config.json").write_text(json.dumps({"model_type": "albert"}))
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
[steps.half]
run = "train"
model = {{ from = "small", keep_blocks = [0] }}
data = "d"
"""


@pytest.mark.parametrize("model", ['"albert"', '{ from = "albert", new_head = true }'])
def test_check_refuses_what_needs_the_parts_of_a_family_without_a_row(
    folder: Path, model: str
) -> None:
    """Training a whole model does not; cutting and quantizing it do."""
    with pytest.raises(RecipeError) as refused:
        parse_recipe(RECIPE.format(model=model), path=folder / "r.toml")
    places = [mistake.partition(" (line")[0] for mistake in refused.value.mistakes]
    assert places == ["steps.int8.model", "steps.half.model.from"]
    assert re.search(REFUSED, str(refused.value))


@pytest.mark.parametrize(
    ("steps", "word", "is_refused"),
    [
        ({}, "albert", True),
        ({}, "nowhere", False),
        ({}, "demo:minilm-l6", False),
        ({"a": {"model": "b"}, "b": {"model": "albert"}}, "a", True),
        ({"a": {"model": {"config": {"model_type": "albert"}}}}, "a", True),
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
        assert (families.problem(word, {"run": "quantize"}) is not None) == is_refused


def test_a_damaged_config_is_left_to_the_step_that_reads_it(folder: Path) -> None:
    (folder / "albert" / "config.json").write_text("{")
    assert ModelFamilies({}, folder).problem("albert", {"run": "quantize"}) is None
