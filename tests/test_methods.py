"""A method is in three places, or in none: the config's union, the step's table, and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from attar.analysis.config import AnalyzeStep
from attar.losses.config import LossConfig
from attar.quantization.config import QuantizeStep
from attar.recipe.checking.mistakes import leaves


def _words(union: Any, field: str) -> set[str]:
    leaves_of_union = leaves(get_args(union)[0])
    return {member.model_fields[field].default for member in leaves_of_union}


def _cards(repository: Path) -> set[str]:
    return {card.stem for card in (repository / "docs" / "methods").glob("*.md")}


def test_quantization_methods_stand_in_union_table_and_cards(repository: Path) -> None:
    from attar.quantization.methods import METHODS

    words = _words(QuantizeStep, "method")
    assert words
    assert words == set(METHODS)
    assert words <= _cards(repository)


def test_every_loss_names_its_term_and_has_a_card(repository: Path) -> None:
    from attar.losses.total import term_class

    losses: Any = leaves(get_args(LossConfig)[0])
    assert {term_class(loss).__module__.partition(".losses.")[1] for loss in losses} == {".losses."}
    assert _words(LossConfig, "kind") <= _cards(repository)


def test_studies_stand_in_union_table_cards_and_report(repository: Path) -> None:
    from attar.analysis.run import STUDIES
    from attar.report.charts.study_pictures import STUDY_PICTURES
    from attar.report.study_tables.layouts import LAYOUTS, TITLES

    words = _words(AnalyzeStep, "study")
    assert words
    assert words == set(STUDIES) == set(LAYOUTS) == set(TITLES)
    assert set(STUDY_PICTURES) <= words
    assert {f"analyze_{word}" for word in words} <= _cards(repository)
    tags = {get_args(member)[1].tag for member in get_args(get_args(AnalyzeStep)[0])}
    assert tags == words


def test_every_card_names_code_that_exists(repository: Path) -> None:
    for card in (repository / "docs" / "methods").glob("*.md"):
        named = card.read_text().partition("Code: `")[2].partition("`")[0]
        assert named, f"{card.name} names no code"
        assert (repository / named).is_file(), f"{card.name} names {named}"
