"""From records to labelled texts: a row is kept, or it is set aside with its reason.

The problem: real files hold rows without a text, with a NaN for a label, with a class that training
never saw. Dropping them silently falsifies every figure; stopping at the first wastes a day. The
idea: two passes. `take_texts` looks at one row at a time and needs nothing else; `settle_labels`
then knows all labels of train, so it can say what a class is.

    kept + set aside = read

Above a share of `max_set_aside` in a split the loading stops and lists the counts by reason.

Labels: names or integers. The classes are `label_names` if given (a label is then a name of it or
an index into it), else the distinct labels of train: integers in order of size, names in order of
the alphabet. Whichever of the two most rows have is the kind of the column; the others are set
aside.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attar.data.reading.byte_lines import MAX_ROW_BYTES, TOO_LONG, Unreadable
from attar.data.reading.records import NOT_UTF8, Record
from attar.data.tables import UNLABELLED, SetAside, Split
from attar.errors import DataError

MAX_CLASSES = 1000
"""More distinct labels than this are no classes: the column is an id, a text or a number."""
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""Longer runs of digits, and those with a leading zero, are names."""
EXAMPLES_SHOWN = 3
MAX_FAULTS = 1_000_000
"""More unusable rows than this are not even counted: a gigabyte of empty objects must not fill
memory."""
Label = int | str | None
"""A class as it stands in the file; None: unlabelled."""

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Columns:
    """Which columns of a record are its text or texts, its label, and its id."""

    text: tuple[str, ...]
    label: str | None
    """None: the rows are unlabelled."""
    id: str | None = None
    """Its values must differ from row to row; None, or a row without it: not looked at."""


@dataclass
class Taken:
    """The rows of a split whose texts are good, in order, their labels as found; and the others."""

    split: str
    texts: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    num_read: int = 0


def take_texts(records: Iterable[Record | Unreadable], columns: Columns, split: str) -> Taken:
    """First pass: keep what has a text, with its label unread."""
    taken = Taken(split)
    ids: set[str] = set()
    for row, record in enumerate(records):
        taken.num_read += 1
        reason = (
            record.reason if isinstance(record, Unreadable) else _fault_of(record, columns, ids)
        )
        if reason is not None:
            taken.set_aside.append(SetAside(split, row, reason))
            if len(taken.set_aside) > MAX_FAULTS:
                raise DataError(
                    f"split {split!r}: more than {MAX_FAULTS} of its first {row + 1} rows cannot "
                    f"be used (the last one: {reason}); look at the file"
                )
        elif isinstance(record, dict):
            taken.texts.append(tuple(record[name] for name in columns.text))
            taken.labels.append(record[columns.label] if columns.label is not None else None)
            taken.rows.append(row)
    return taken


def _fault_of(record: Record, columns: Columns, ids: set[str]) -> str | None:
    """Why a row cannot be used, or None; its id is added to those seen."""
    for name in columns.text:
        reason = fault_of_text(name, record.get(name))
        if reason is not None:
            return reason
    if columns.label is not None and columns.label not in record:
        return f"no {columns.label}"
    if columns.id is None or columns.id not in record:
        return None
    identity = repr(record[columns.id])
    if identity in ids:
        return f"duplicate {columns.id}"
    ids.add(identity)
    return None


def fault_of_text(name: str, text: Any) -> str | None:
    """Why a value cannot be used as the text `name`, or None."""
    if text is None:
        return f"no {name}"
    if not isinstance(text, str):
        return f"{name} is no text"
    if not text.strip():
        return f"empty {name}"
    if "\0" in text:
        return f"NUL byte in {name}"
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        return NOT_UTF8.reason
    return TOO_LONG.reason if len(encoded) > MAX_ROW_BYTES else None


def find_label_names(train: Taken, column: str) -> tuple[str, ...]:
    """The classes of a column: the distinct labels of the kind that most rows have, in order.

    Raises:
        DataError: there are fewer than two classes, or so many that the column holds no classes.
    """
    labels = [
        label for label in map(_read_label, train.labels) if not isinstance(label, Unreadable)
    ]
    kinds = Counter(type(label) for label in labels if label is not None)
    kind = kinds.most_common(1)[0][0] if kinds else str
    classes = sorted({label for label in labels if type(label) is kind})  # type: ignore[type-var]
    if 2 <= len(classes) <= MAX_CLASSES:
        return tuple(map(str, classes))
    shown = ", ".join(map(repr, classes[:EXAMPLES_SHOWN])) or "none"
    raise DataError(
        f"label column {column!r} of split {train.split!r} has {len(classes)} different labels in "
        f"{len(train.texts)} usable rows "
        f"({shown}{', …' if len(classes) > EXAMPLES_SHOWN else ''}); a classification needs 2 to "
        f'{MAX_CLASSES}; choose another column with label =, or set objective = "regression" for '
        "numbers"
    )


def settle_labels(
    taken: Taken,
    label_names: Sequence[str],
    *,
    is_regression: bool = False,
    may_lack_labels: bool = False,
    may_be_indices: bool = False,
) -> tuple[Split, list[SetAside]]:
    """Second pass: every label becomes its class (or number), or its row is set aside too.

    Args:
        may_lack_labels: keep rows without a label, as `UNLABELLED` (or NaN); else they are set
            aside.
        may_be_indices: an integer that is no name is an index into `label_names`.

    Returns: the kept rows, and all rows of the split that were set aside in both passes, in order.
    """
    places = {name: place for place, name in enumerate(label_names)}
    indices_end = len(places) if may_be_indices and not any(map(_is_integer, places)) else 0
    kept: list[int] = []
    labels: list[float] = []
    set_aside = list(taken.set_aside)
    for i, value in enumerate(taken.labels):
        label = _read_number(value) if is_regression else _class_of(value, places, indices_end)
        if label is None:
            no_label = math.nan if is_regression else UNLABELLED
            label = no_label if may_lack_labels else Unreadable("unlabelled")
        if isinstance(label, Unreadable):
            set_aside.append(SetAside(taken.split, taken.rows[i], label.reason))
        else:
            kept.append(i)
            labels.append(label)
    set_aside.sort(key=lambda fault: fault.row)
    array = np.array(labels, dtype=np.float32 if is_regression else np.int64)
    return Split(tuple(taken.texts[i] for i in kept), array), set_aside


def _class_of(value: Any, places: dict[str, int], indices_end: int) -> int | Unreadable | None:
    label = _read_label(value)
    if label is None or isinstance(label, Unreadable):
        return label
    if str(label) in places:
        return places[str(label)]
    if isinstance(label, int):
        if label == UNLABELLED:
            return None
        if 0 <= label < indices_end:
            return label
    return Unreadable("unknown label")


def _read_label(value: Any) -> Label | Unreadable:
    """A label in its plain form: "3", 3 and 3.0 are one class; True and False are names."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return Unreadable("NaN label")
        return int(value) if value.is_integer() else Unreadable("label is neither class nor name")
    if not isinstance(value, str):
        return Unreadable("label is neither class nor name")
    name = value.strip()
    if not name:
        return Unreadable("empty label")
    if name.lower() == "nan":
        return Unreadable("NaN label")
    return int(name) if _is_integer(name) else name


def _is_integer(name: str) -> bool:
    return INTEGER.fullmatch(name) is not None


def _read_number(value: Any) -> float | Unreadable | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return Unreadable("label is no number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return Unreadable("label is no number")
    if not math.isfinite(number):
        return Unreadable("NaN label")
    # Labels are float32: a number beyond its range would silently become infinite.
    return number if abs(number) <= FLOAT32_MAX else Unreadable("label too large")


def check_set_aside(
    name: str, split: str, num_read: int, set_aside: Sequence[SetAside], limit: float
) -> None:
    """Stop when too much of a split is unusable, or all of it, or there was nothing.

    Raises:
        DataError: with the counts by reason and the first rows of each.
    """
    if num_read == 0:
        raise DataError(
            f"split {split!r} of data {name!r} is empty: 0 rows; give it a file with rows"
        )
    if len(set_aside) <= limit * num_read and len(set_aside) < num_read:
        return
    counts = Counter(fault.reason for fault in set_aside)
    lines = [
        f"  {count} × {reason}: row {', '.join(str(f.row) for f in _first(set_aside, reason))}"
        + (", …" if count > EXAMPLES_SHOWN else "")
        for reason, count in counts.most_common()
    ]
    raise DataError(
        f"split {split!r} of data {name!r}: {len(set_aside)} of {num_read} rows cannot be used "
        f"({len(set_aside) / num_read:.1%}; max_set_aside allows {limit:.1%}); mend them, or "
        "raise max_set_aside",
        lines,
    )


def _first(set_aside: Sequence[SetAside], reason: str) -> list[SetAside]:
    return [fault for fault in set_aside if fault.reason == reason][:EXAMPLES_SHOWN]
