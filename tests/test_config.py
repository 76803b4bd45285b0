"""Settings: frozen, strict about names, the same JSON everywhere."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from attar.config import Config, as_tuples
from attar.training.config import TrainStep


class Inner(Config):
    rate: float = 0.5


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        Inner.model_validate({"rat": 0.5})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Inner().rate = 0.1  # type: ignore[misc]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Inner(rate=value)


def test_a_dump_reads_back_as_the_same_settings() -> None:
    step = TrainStep.model_validate(
        {"model": {"from": "teacher", "keep_blocks": [1]}, "data": "d", "teacher": "teacher"}
    )
    assert TrainStep.model_validate_json(step.model_dump_json(by_alias=True), strict=True) == step


def test_lists_become_tuples_at_any_depth() -> None:
    assert as_tuples({"a": [1, [2, {"b": [3]}]]}) == {"a": (1, (2, {"b": (3,)}))}
