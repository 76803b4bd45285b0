"""Errors: their exit codes are the contract's, and a recipe's mistakes come together."""

from __future__ import annotations

import pytest

from attar import errors
from attar.errors import AttarError, RecipeError, did_you_mean

CONTRACT = {
    "UsageError": 2,
    "RecipeError": 2,
    "ModelError": 2,
    "DataError": 3,
    "ArtifactError": 3,
    "ResourceError": 4,
    "NonFiniteError": 5,
    "GateMissedError": 6,
    "StoppedError": 75,
}


def test_every_kind_of_error_has_the_contracts_exit_code() -> None:
    kinds = {kind.__name__: kind.exit_code for kind in AttarError.__subclasses__()}
    assert kinds == CONTRACT
    assert set(CONTRACT) < set(dir(errors))


@pytest.mark.parametrize(
    ("count", "words"), [(1, "r.toml: 1 mistake\n"), (2, "r.toml: 2 mistakes\n")]
)
def test_a_recipes_mistakes_are_listed(count: int, words: str) -> None:
    error = RecipeError([f"place {i}" for i in range(count)], "r.toml")
    assert str(error).startswith(words)
    assert str(error).count("\n  - place") == count


def test_a_far_word_gets_no_hint() -> None:
    assert did_you_mean("zebra", ["learning_rate"]) == ""
    for name, word in (("label", "table"), ("file", "title"), ("body", "model")):
        assert did_you_mean(name, [word]) == ""
    assert did_you_mean("anything", []) == ""
