"""From pydantic's errors to sentences."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

import attar.recipe.checking.mistakes as mistakes
from attar.config import Config
from attar.recipe.checking.mistakes import MAX_MISTAKES, Mistake, explain, locate


class One(Config):
    kind: Literal["one"] = "one"
    width: int = 1


class Two(Config):
    kind: Literal["two"] = "two"
    depth: int = 1


Share = Annotated[float, Field(le=1)]


class Whole(Config):
    either: int | str = 1
    rows: tuple[int, ...] | tuple[float, ...] = ()
    listed: tuple[int, ...] | str = ()
    named: Share | dict[str, Share] = 1.0
    told_apart: One | Two = Field(One(), discriminator="kind")
    many: tuple[Annotated[One | Two, Field(discriminator="kind")], ...] = ()


def found_in(**settings: Any) -> list[Mistake]:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(settings, strict=True)
    return explain(caught.value, Whole)


def test_every_complaint_of_a_plain_union_is_said() -> None:
    told = "should be a valid integer, got []; or should be a valid string, got []"
    assert found_in(either=[]) == [Mistake(("either",), told)]


def test_the_same_complaint_is_said_once() -> None:
    assert found_in(rows="a") == [Mistake(("rows",), "should be a valid tuple, got 'a'")]


def test_of_a_list_or_a_table_with_a_wrong_item_only_the_item_is_told() -> None:
    told = "should be a valid integer, got 'a'"
    assert found_in(listed=(1, "a")) == [Mistake(("listed", 1), told)]
    told = "should be less than or equal to 1, got 2.0"
    assert found_in(named={"a": 2.0}) == [Mistake(("named", "a"), told)]


def test_a_long_value_is_cut() -> None:
    [found] = found_in(rows="x" * 500)
    assert found.text == f"should be a valid tuple, got '{'x' * 59}…"


def test_the_tag_of_a_union_is_no_part_of_the_place() -> None:
    """A field that names its discriminator itself, and a type that carries it."""
    known = "unknown name (did you mean 'depth'?)"
    [found] = found_in(told_apart={"kind": "two", "dept": 1})
    assert found == Mistake(("told_apart", "dept"), known)
    [found] = found_in(many=({"kind": "one"}, {"kind": "two", "dept": 1}))
    assert found == Mistake(("many", 1, "dept"), known)
    spot = locate(Whole, ("told_apart", "two", "depth"))
    assert (spot.place, spot.owner) == (("told_apart", "depth"), Two)


def test_near_names_are_looked_for_only_as_often_as_they_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = 0
    near = mistakes.did_you_mean

    def counted(*words: Any, **settings: Any) -> str:
        nonlocal looked
        looked += 1
        return near(*words, **settings)

    monkeypatch.setattr(mistakes, "did_you_mean", counted)
    found = found_in(**{f"noise{i}": i for i in range(1000)})
    assert len(found) == 1000
    assert looked == MAX_MISTAKES
