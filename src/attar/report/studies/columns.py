"""What a study's table on the page is made of: which figures of a row, under what heading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One figure of a row."""

    key: str
    head: str
    form: str = "number"
    """text, code, number, percent (of 1), percent4, points, metric, change or list."""

    @property
    def is_number(self) -> bool:
        return self.form not in ("text", "code", "list")


@dataclass(frozen=True)
class Layout:
    """How one of a study's tables is shown."""

    table: str
    caption: str
    columns: tuple[Column, ...]
    arrange: Callable[[Sequence[Row], Row], tuple[tuple[Column, ...], Sequence[Row]]] | None = None
    """Makes further columns, and other rows, of what the study wrote; it is given the facts too."""
