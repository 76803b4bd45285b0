"""What a step refers to: words that name models and words that name data, each with its place.

Every part of the engine that follows arrows (relations, graph, keys, sweep) reads places, and
never knows a step's fields by name. Places are found in the plain table, so that a step with a
mistake elsewhere still shows what it refers to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

MODEL_MAKERS = ("train", "fold", "quantize", "export")


@dataclass(frozen=True)
class ModelPlace:
    """A place of a step's table that holds a model word; `*` stands for every item of a list."""

    place: str
    makers: tuple[str, ...] = MODEL_MAKERS
    """Kinds of steps whose artifact fits here."""
    needs_task: bool = False
    """The model must know its labels; bare pretrained weights do not."""
    answers: bool = False
    """The model must answer something, and not be a base that predicts masked tokens."""
    steps_only: bool = False
    """The word names what a step made and not a model: a step of this recipe, or the folder that
    one published."""
    tokenizer_only: bool = False
    """The tokenizer of what the word names is used, which need not have a model."""


@dataclass(frozen=True)
class Reference:
    """One word at one place."""

    place: str
    """Dotted, such as "models.1"."""
    word: str


@dataclass(frozen=True)
class ModelWord(Reference):
    """A word that is a step's name, a folder, a hub id or a demo model."""

    wanted: ModelPlace

    @property
    def read(self) -> tuple[str, bool]:
        """What is read of a model outside the recipe: its word, and whether only its tokenizer."""
        return self.word, self.wanted.tokenizer_only


def model_references(
    table: Mapping[str, Any], places: Sequence[ModelPlace]
) -> tuple[ModelWord, ...]:
    """Every model word of a step's table.

    Example:
        >>> [(r.place, r.word) for r in model_references(
        ...     {"models": ["teacher", "int8"]}, [ModelPlace("models.*")])]
        [('models.0', 'teacher'), ('models.1', 'int8')]
    """
    return tuple(
        ModelWord(place, word, wanted)
        for wanted in places
        for place, word in _words_at(table, wanted.place.split("."))
    )


def data_references(table: Mapping[str, Any], places: Sequence[str]) -> tuple[Reference, ...]:
    """Every word of a step's table that must name a `[data.<name>]` table or a step that makes
    rows."""
    return tuple(
        Reference(place, word)
        for wanted in places
        for place, word in _words_at(table, wanted.split("."))
    )


def published_folder(word: str, recipe_folder: Path) -> Path:
    """The folder of a step of another run that a word names."""
    # unlike Path's, it leaves the home of an unknown user as it is written
    return recipe_folder / os.path.expanduser(word)  # noqa: PTH111


def table_of(value: Any) -> Mapping[str, Any]:
    """The value when it is a table, else an empty one."""
    # A dict is recognized ten times as fast as a Mapping, and nearly always is one.
    is_table = isinstance(value, dict) or isinstance(value, Mapping)  # noqa: SIM101
    return cast("Mapping[str, Any]", value) if is_table else {}


def _words_at(value: Any, path: Sequence[str], prefix: str = "") -> Iterator[tuple[str, str]]:
    if not path:
        if isinstance(value, str):
            yield prefix.removesuffix("."), value
        return
    first, rest = path[0], path[1:]
    if first == "*" and isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("Sequence[Any]", value)):
            yield from _words_at(item, rest, f"{prefix}{index}.")
    elif first in table_of(value):
        yield from _words_at(table_of(value)[first], rest, f"{prefix}{first}.")


def with_words(table: Mapping[str, Any], replaced: Mapping[str, str | None]) -> dict[str, Any]:
    """A copy of a step's table with the words at some places replaced.

    Example:
        >>> with_words({"model": {"from": "a"}, "models": ["a", "b"]}, {"model.from": "c"})
        {'model': {'from': 'c'}, 'models': ['a', 'b']}
    """
    copy = dict(table)
    for place, word in replaced.items():
        copy = with_value(copy, place.split("."), word)
    return copy


def with_value(content: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of plain data with `value` at a path; missing tables are made.

    Raises:
        IndexError, ValueError: the path leads to a position that a list does not have.
    """
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(content, (list, tuple)):
        items = list(cast("Sequence[Any]", content))
        items[int(first)] = with_value(items[int(first)], rest, value)
        return items
    inner = table_of(content)
    return {**inner, first: with_value(inner.get(first), rest, value)}
