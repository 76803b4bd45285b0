"""Settings of evaluate as a recipe writes them."""

from __future__ import annotations

import tomllib

import pytest
from pydantic import ValidationError

from attar.evaluation.config import EvaluateStep, Speed

STEP = 'models = ["a", "b"]\ndata = "docs"\n'


def step(text: str) -> EvaluateStep:
    return EvaluateStep.model_validate(tomllib.loads(STEP + text))


def test_speed_is_measured_unless_it_is_false() -> None:
    assert step("").speed == Speed()
    assert step("speed = true").speed == Speed()
    assert step("speed = false").speed is None
    assert step("speed = { tokens = 64 }").speed == Speed(tokens=64)


def test_settings_survive_their_own_json() -> None:
    for text in ("", "speed = false", "speed = { rounds = 5 }"):
        config = step(text)
        assert EvaluateStep.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "text",
    [
        *("speed = { batch_sizes = [] }", "speed = { batch_sizes = [1, 1] }", "speed = 3"),
        *("lengths = []", "lengths = [64, 64]", 'lengths = ["median"]', "lengths = [0]"),
        'lengths = ["data"]\nspeed = { tokens = 64 }',
    ],
)
def test_impossible_speeds_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        step(text)


def test_a_model_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"'a'.*more than once"):
        EvaluateStep(models=("a", "b", "a"), data="docs")
