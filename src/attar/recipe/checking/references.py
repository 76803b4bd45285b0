"""References of a step: names of models and of data, each with its place in the step's table.

All parts of the engine that follow references (relations, graph, keys, sweep) use these places and
do not know the fields of steps by name. Places are looked up in the plain table, so references are
found even if other settings of the step are invalid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

MODEL_MAKERS = ("train", "fold", "quantize", "export")


@dataclass(frozen=True)
class ModelPlace:
    """A place in a step's table that refers to a model; `*` stands for every item of a list."""

    place: str
    makers: tuple[str, ...] = MODEL_MAKERS
    """Kinds of steps whose artifact can be used here."""
    needs_task: bool = False
    """Whether the model needs a task; bare pretrained weights have none."""
    answers: bool = False
    """Whether the model must give predictions, so that a base model with a masked language model
    head is not enough."""
    steps_only: bool = False
    """Whether only the artifact of a step is allowed: a step of this recipe, or a published
    folder."""
    tokenizer_only: bool = False
    """Whether only the tokenizer is used, so that no model is needed."""


@dataclass(frozen=True)
class Reference:
    """A name at one place."""

    place: str
    """Dotted, such as "models.1"."""
    word: str


@dataclass(frozen=True)
class ModelWord(Reference):
    """The name of a step, a folder, a hub id or a demo model."""

    wanted: ModelPlace

    @property
    def read(self) -> tuple[str, bool]:
        """For a model outside the recipe: its name, and whether only its tokenizer is read."""
        return self.word, self.wanted.tokenizer_only


def model_references(
    table: Mapping[str, Any], places: Sequence[ModelPlace]
) -> tuple[ModelWord, ...]:
    """Every reference to a model in a step's table.

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
    """Every reference to data in a step's table: a `[data.<name>]` table or a step that makes
    rows."""
    return tuple(
        Reference(place, word)
        for wanted in places
        for place, word in _words_at(table, wanted.split("."))
    )


def table_of(value: Any) -> Mapping[str, Any]:
    """The value if it is a table, otherwise an empty table."""
    # Checking for dict is ten times as fast as for Mapping, and nearly always sufficient.
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
    """Copy a step's table with the names at some places replaced.

    Example:
        >>> with_words({"model": {"from": "a"}, "models": ["a", "b"]}, {"model.from": "c"})
        {'model': {'from': 'c'}, 'models': ['a', 'b']}
    """
    copy = dict(table)
    for place, word in replaced.items():
        copy = with_value(copy, place.split("."), word)
    return copy


def with_value(content: Any, path: Sequence[str], value: Any) -> Any:
    """Copy plain data with `value` set at a path; missing tables are created.

    Raises:
        IndexError, ValueError: the path has an invalid index of a list.
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
