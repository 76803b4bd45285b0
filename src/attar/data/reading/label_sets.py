"""Cells with any number of labels: `billing|urgent`, or a JSON list.

An empty cell and an empty list mean that no label applies; null or a missing column means
unlabelled. Each name is read as a single label is (`labels`), so whole numbers are again classes
sorted by size. Not supported: one column per label, and Parquet list columns.
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
    """Split a cell into its labels.

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


def settle_sets(taken: Taken, classes: Classes, may_lack: bool = False) -> Settled:
    """Convert the labels of every row to a row of 0 and 1, or set the row aside.

    Args:
        taken: rows whose label cells were split by `labels_of`.
        may_lack: keep rows without labels, as −1.
    """
    nothing_known = np.full(len(classes.names), UNLABELLED, dtype=np.int8)

    def read(cell: Any) -> np.ndarray | Unreadable:
        found = _row_of(cell, classes)
        return nothing_known if may_lack and isinstance(found, Missing) else found

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
