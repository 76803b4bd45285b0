"""A method is in three places, or in none: the config's union, the step's table, and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from attar.losses.config import LossConfig
from attar.quantization.config import QuantizeStep


def _words(union: Any, field: str) -> set[str]:
    members = get_args(get_args(union)[0])
    return {member.model_fields[field].default for member in members}


def _cards(repository: Path) -> set[str]:
    return {card.stem for card in (repository / "docs" / "methods").glob("*.md")}


def test_quantization_methods_stand_in_union_table_and_cards(repository: Path) -> None:
    from attar.quantization.run import METHODS

    words = _words(QuantizeStep, "method")
    assert words
    assert words == set(METHODS)
    assert words <= _cards(repository)


def test_losses_stand_in_union_table_and_cards(repository: Path) -> None:
    from attar.losses.total import UNITS

    words = _words(LossConfig, "kind")
    assert words
    assert words == set(UNITS)
    assert words <= _cards(repository)


def test_every_card_names_code_that_exists(repository: Path) -> None:
    for card in (repository / "docs" / "methods").glob("*.md"):
        named = card.read_text().partition("Code: `")[2].partition("`")[0]
        assert named, f"{card.name} names no code"
        assert (repository / named).is_file(), f"{card.name} names {named}"
