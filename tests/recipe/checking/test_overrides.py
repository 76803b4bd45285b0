"""`--set`: TOML values at dotted places, and nothing invented by a typo."""

from __future__ import annotations

import pytest

from attar.errors import RecipeError
from attar.recipe.checking.overrides import apply_overrides
from attar.recipe.load import parse_recipe
from engine_steps import RECIPE


def test_values_are_toml_and_plain_words_need_no_quotes() -> None:
    content: dict[str, object] = {"steps": {"a": {"list": [{"x": 1}, {"x": 2}]}}}
    assert not apply_overrides(
        content,
        [
            "steps.a.rate=1e-4",
            "steps.a.word=inverse_sqrt",
            "steps.a.path=data/my files",
            'steps.a.quoted="1"',
            "steps.a.flag=false",
            "steps.a.list.1.x=[1, 2]",
            "steps.a.table={ y = 1 }",
            "sweep.seed=[0, 1]",
        ],
    )
    assert content == {
        "steps": {
            "a": {
                "rate": 1e-4,
                "word": "inverse_sqrt",
                "path": "data/my files",
                "quoted": "1",
                "flag": False,
                "list": [{"x": 1}, {"x": [1, 2]}],
                "table": {"y": 1},
            }
        },
        "sweep": {"seed": [0, 1]},
    }


def test_the_last_override_of_a_setting_wins() -> None:
    recipe = parse_recipe(RECIPE, ["seed=1", "seed=2"])
    assert recipe.seed == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps.studnt.epochs=1", "steps has no 'studnt' (did you mean 'student'?)"),
        ("step.student.epochs=1", "the recipe has no 'step' (did you mean 'steps'?)"),
        ("steps.student.epocs=1", "unknown name (did you mean 'epochs'?)"),
        ("steps.student.epochs=two", "should be a valid number, got 'two'"),
        ("steps.student.epochs", "does not have the form dotted.path=value"),
        ("steps..epochs=1", "does not have the form dotted.path=value"),
        ("steps.scores.models.7=x", "'7' is not a position in a list of 3; count from 0"),
        ("steps.scores.models.3=x", "'3' is not a position in a list of 3; count from 0"),
        ("steps.student.data.x=1", "steps.student.data is not a table, so it has no 'x'"),
        ("steps.student.epochs=[1", "'[1' is not a TOML value"),
        ("steps.student.epochs=1\nseed = 2", "is more than one value"),
        ("steps.scores.speed.threds=1", "unknown name (did you mean 'threads'?)"),
    ],
)
def test_an_override_that_leads_nowhere_is_a_mistake_that_names_it(
    override: str, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE, [override])
    [found] = caught.value.mistakes
    assert said in found
    assert "--set" in found


def test_a_table_that_is_not_written_can_be_reached() -> None:
    step = parse_recipe(RECIPE, ["steps.scores.speed.threads=1"]).steps["scores"]
    assert step.speed.threads == 1  # type: ignore[union-attr]


def test_a_whole_step_can_be_added() -> None:
    added = (
        'steps.again={run="quantize", model="student", method="minmax", calibration={data="docs"}}'
    )
    assert "again" in parse_recipe(RECIPE, [added]).steps
