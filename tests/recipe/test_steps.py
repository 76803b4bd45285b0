"""The literal table: every row leads to a function, and every kind of step has a row."""

from __future__ import annotations

from typing import get_args

import pytest

from attar.recipe.checking.mistakes import leaves
from attar.recipe.load import parse_recipe
from attar.recipe.schema import StepConfig
from attar.recipe.steps import STEPS, kind_of
from engine_steps import RECIPE


@pytest.mark.parametrize("run", list(STEPS))
def test_every_row_leads_to_a_function(run: str) -> None:
    pytest.importorskip(STEPS[run].function.partition(":")[0])
    assert callable(STEPS[run].resolve())


def test_the_table_and_the_union_of_settings_name_the_same_steps() -> None:
    union = {leaf.model_fields["run"].default for leaf in leaves(get_args(StepConfig)[0])}
    assert union == set(STEPS)


def test_every_word_that_names_a_model_or_data_is_found() -> None:
    steps = parse_recipe(RECIPE).steps
    found = {
        name: (
            [(r.place, r.word) for r in kind_of(step).models_in(step)],
            [(r.place, r.word) for r in kind_of(step).data_in(step)],
        )
        for name, step in steps.items()
    }
    assert found == {
        "teacher": ([("model", "demo:minilm-l6")], [("data", "docs")]),
        "student": ([("model.from", "teacher"), ("teacher", "teacher")], [("data", "docs")]),
        "int8": ([("model", "student")], [("calibration.data", "docs")]),
        "scores": (
            [("models.0", "teacher"), ("models.1", "student"), ("models.2", "int8")],
            [("data", "docs")],
        ),
        "report": ([], []),
    }
