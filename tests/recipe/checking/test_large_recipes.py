"""A check's work grows with the recipe and not with its square: 3,000 steps are 3,000 steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from attar.errors import RecipeError
from attar.recipe.graph import find_cycle, in_order
from attar.recipe.load import parse_recipe

STEPS = 3000
FEW = 300


class Counted(str):
    """A name that counts how often it is compared."""

    comparisons = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)  # type: ignore[arg-type]

    __hash__ = str.__hash__


def chain(steps: int, *, is_reversed: bool) -> dict[str, list[str]]:
    """Step → what it reads; reversed: the last of the chain is written first."""
    names = [Counted(f"s{i}") for i in range(steps)]
    found = {name: [Counted(f"s{i - 1}")] if i else [] for i, name in enumerate(names)}
    return dict(reversed(found.items())) if is_reversed else found  # type: ignore[return-value]


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("work", [in_order, find_cycle])
def test_a_name_is_compared_a_few_times_however_many_there_are(
    work: Callable[[Any], Any], is_reversed: bool
) -> None:
    inputs = chain(STEPS, is_reversed=is_reversed)
    Counted.comparisons = 0
    found = work(inputs)
    assert Counted.comparisons <= 20 * STEPS
    assert found == (None if work is find_cycle else [f"s{i}" for i in range(STEPS)])


def recipe(steps: int, model: str = "s{}", data: str = "d") -> str:
    """A chain, its last step written first."""
    tables = [
        f'[steps.s{i}]\nrun = "train"\ndata = "{data}"\n'
        f'model = "{model.format(i - 1) if i else "demo:minilm-l6"}"\n'
        for i in reversed(range(steps))
    ]
    return 'name = "chain"\n[data.d]\nsource = "stdlib_docs"\n' + "".join(tables)


def calls_of(work: Callable[[], object]) -> int:
    """Functions called while it works, Python's own in C included."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def checked(text: str) -> object:
    try:
        return parse_recipe(text).order
    except RecipeError as error:
        return error


@pytest.mark.parametrize(
    "settings", [{}, {"model": "x{}"}, {"model": "owner/{}"}, {"data": "e"}, {"model": "./f{}"}]
)
def test_ten_times_the_steps_are_about_ten_times_the_calls(settings: dict[str, str]) -> None:
    few, many = recipe(FEW, **settings), recipe(10 * FEW, **settings)
    checked(few)  # what is imported and compiled at first
    assert calls_of(lambda: checked(many)) <= 13 * calls_of(lambda: checked(few))


def test_a_long_chain_is_checked_and_ordered() -> None:
    assert parse_recipe(recipe(STEPS)).order == [f"s{i}" for i in range(STEPS)]


def test_a_message_names_no_more_than_anyone_reads() -> None:
    text = recipe(STEPS, data="e") + '[[gates]]\nmetric = "zzz.accuracy"\nat_least = 0.5\n'
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    assert len(str(caught.value)) < 10_000
    assert "and 2,951 more" in str(caught.value)
