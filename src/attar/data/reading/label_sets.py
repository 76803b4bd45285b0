"""Cells that hold several labels, or none: `billing|urgent`, or a JSON list.

An empty cell and an empty list are an answer (no label applies); null, and a row without the
column, have none. Each name is read as a label of its own (`labels`), so whole numbers are classes
by size here too. Left out: a column for each label; and lists of Parquet, which are not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.labels import Classes, Missing
from attar.data.reading.rows import Taken, settled
from attar.data.tables import UNLABELLED, Settled, Split


def labels_of(value: Any, separator: str) -> list[Any] | Unreadable:
    """The labels of a cell.

    Example:
        >>> labels_of("a| b", "|"), labels_of('["a", "b"]', "|"), labels_of("", "|")
        (['a', 'b'], ['a', 'b'], [])
    """
    if value is None:
        return Missing("unlabelled")
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("["):
            return [name.strip() for name in text.split(separator)] if text else []
        try:
            value = json.loads(text)
        except ValueError:
            return Unreadable("labels that begin with [ and are not a JSON list")
    if isinstance(value, list):
        return value
    return [value]


def every_label(cells: Iterable[Any]) -> Iterator[Any]:
    """The labels of all cells, one by one."""
    for cell in cells:
        if isinstance(cell, list):
            yield from cell


def settle_sets(taken: Taken, classes: Classes, *, may_lack_labels: bool = False) -> Settled:
    """The labels of every row become a row of 0 and 1, or the row is set aside.

    Args:
        taken: with what `labels_of` made of the cells.
        may_lack_labels: keep rows without labels, as −1.
    """
    nothing_known = np.full(len(classes.names), UNLABELLED, dtype=np.int8)

    def read(cell: Any) -> np.ndarray | Unreadable:
        found = _row_of(cell, classes)
        return nothing_known if may_lack_labels and isinstance(found, Missing) else found

    texts, rows, set_aside = settled(taken, read)
    array = np.array(rows, dtype=np.int8).reshape(len(rows), len(classes.names))
    return Split(texts, array), set_aside


def _row_of(cell: list[Any] | Unreadable, classes: Classes) -> np.ndarray | Unreadable:
    if isinstance(cell, Unreadable):
        return cell
    row = np.zeros(len(classes.names), dtype=np.int8)
    for label in cell:
        place = classes.place_of(label)
        if isinstance(place, Unreadable):
            return place
        row[place] = 1
    return row
