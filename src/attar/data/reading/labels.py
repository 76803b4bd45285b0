"""Interpret the labels of a column: classes, numbers, or missing values.

The problem: deciding the type value by value splits a column in two. Of the codes "01" … "10", only
the last one reads as a number, so class "10" would disappear; and a table that once had an empty
cell contains "1.0" instead of 1. The idea: one type for the whole column, decided from all train
labels together, since they are the classes.

    whole numbers if all labels are: 1, "1", 1.0 and "1.0" are class "1"; sorted by size names
    otherwise: each label as written, without surrounding spaces; sorted

The labels of the other splits are read in the same way. A word for a missing value (NA, None, nan)
counts as a missing label if the classes are whole numbers. In a column of names it is a class like
any other, and the user gets a note.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

import numpy as np

from attar.data.reading.byte_lines import Unreadable, fault_of_encoding
from attar.data.tables import UNLABELLED
from attar.errors import DataError
from attar.spelling import plain_name, whole_number

MAX_CLASSES = 1000
"""A column with more distinct labels holds no classes: it is an id, a text or a number."""
FEW_ROWS = 10
"""From this number of rows on, a column in which every row has its own label holds no classes."""
ONE_CLASS = 0.99
"""A class with at least this share of the rows is noted as nearly the only one."""
SEPARATORS = ("|", ";", ",", "/", "+", "&")
"""Characters that may separate several labels in a cell."""
EXAMPLES_SHOWN = 3
MAX_SHOWN = 40
"""Maximum number of characters of a label in a message."""
MISSING_WORDS = frozenset({"nan", "na", "n/a", "<na>", "none", "null"})
FLOAT32_MAX = float(np.finfo(np.float32).max)


class Missing(Unreadable):
    """A row without a label, and how that is written."""


def shown(labels: Iterable[str], limit: int = EXAMPLES_SHOWN) -> str:
    """Labels for a message: quoted, shortened, and limited in number."""
    labels = list(labels)
    cut = [name if len(name) <= MAX_SHOWN else name[:MAX_SHOWN] + "…" for name in labels[:limit]]
    return ", ".join(map(repr, cut)) + (", …" if len(labels) > limit else "")


def label_as_written(value: Any) -> str | Unreadable:
    """The text of a label cell; for a typed number, its shortest form.

    Example:
        >>> [label_as_written(value) for value in (" pos ", "01", 1, 1.0, 0.5, True)]
        ['pos', '01', '1', '1', '0.5', 'true']
    """
    if value is None:
        return Missing("unlabelled")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return Missing("NaN label")
        if math.isinf(value):
            return Unreadable("label is infinite")
        return str(int(value)) if value == int(value) else str(value)
    if isinstance(value, int | date | time):
        return str(value)
    if not isinstance(value, str):
        return Unreadable("label is neither a name nor a number")
    name = value.strip()
    if not name:
        return Missing("empty label")
    if "\0" in name:
        return Unreadable("NUL byte in label")
    return fault_of_encoding(name) or name


def number_as_written(value: Any) -> float | Unreadable:
    """The number in a cell, which must be in the range of float32."""
    if value is None:
        return Missing("unlabelled")
    if isinstance(value, str) and not value.strip():
        return Missing("empty label")
    if isinstance(value, str) and value.strip().casefold() in MISSING_WORDS:
        return Missing(f"missing label {value.strip()!r}")
    # float() would accept 1_000, which is probably not meant as a number
    is_number = isinstance(value, int | float | Decimal | str) and not isinstance(value, bool)
    try:
        number = float(value) if is_number and "_" not in str(value) else None
    except (ValueError, OverflowError):
        number = None
    if number is None:
        return Unreadable("label is not a number")
    if math.isnan(number):
        return Missing("NaN label")
    if math.isinf(number):
        return Unreadable("label is infinite")
    # labels are float32, in which a larger number would silently become infinite
    return number if abs(number) <= FLOAT32_MAX else Unreadable("label too large")


class Classes:
    """The classes of a data set, and the lookup of a label's class.

    Args:
        may_be_indices: read a whole number that is not a class name as an index into `names`, if no
            name is a number.
    """

    def __init__(self, names: Sequence[str], *, may_be_indices: bool = False) -> None:
        self.names = tuple(names)
        self._places = {name: place for place, name in enumerate(names)}
        numbers = [whole_number(name) for name in names]
        are_numbers = None not in numbers and len(set(numbers)) == len(numbers)
        self._numbers = dict(zip(numbers, range(len(names)), strict=True)) if are_numbers else {}
        are_words = not any(map(_reads_as_number, names))  # "01" is a number, but not the same as 1
        self._indices = range(len(names) if may_be_indices and are_words else 0)
        self._near = {plain_name(name): name for name in names}

    def place_of(self, value: Any) -> int | Unreadable:
        """The index of a label's class, or why it has none."""
        name = label_as_written(value)
        if isinstance(name, Unreadable):
            return name
        if name in self._places:
            return self._places[name]
        number = whole_number(name)
        if number in self._numbers:
            return self._numbers[number]
        if number is not None and number in self._indices:
            return number
        if number == UNLABELLED:
            return Missing("unlabelled")
        if name.casefold() in MISSING_WORDS:
            return Missing(f"missing label {name!r}")
        near = self._near.get(plain_name(name))
        hint = "" if near is None else f" (is it {shown([near])}?)"
        return Unreadable(f"unknown label {shown([name])}{hint}")


def find_classes(labels: Iterable[Any], column: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes in order, from the labels of train, and notes for the user.

    Raises:
        DataError: there are fewer than two classes, or too many.
    """
    found = list(map(label_as_written, labels))
    read = one_kind(Counter(name for name in found if not isinstance(name, Unreadable)))
    classes = tuple(sorted(read, key=int if _are_whole(read) else None))
    faults = Counter(name.reason for name in found if isinstance(name, Unreadable))
    others = "".join(f"; {count} × {reason}" for reason, count in faults.most_common(3))
    require_classes(len(classes), f"{shown(classes) or 'none'}{others}", column, len(found))
    return classes, tuple(label_notes(read, column))


def require_classes(count: int, examples: str, column: str, num_rows: int) -> None:
    """Raise DataError if a column has fewer than two classes, too many, or one row per class.

    Args:
        count: number of distinct labels in train.
        examples: some of them, for the message.
    """
    if FEW_ROWS <= count == num_rows:
        raise DataError(
            f"label column {column!r} of split 'train' has {count} different labels in {num_rows} "
            f"rows ({examples}), one row a class, and a class with one row cannot be both trained "
            "on and judged; add rows, merge classes, or choose another column with label = (on the "
            "command line --label)"
        )
    if not 2 <= count <= MAX_CLASSES:
        raise DataError(
            f"label column {column!r} of split 'train' has {count} different "
            f"label{'s' * (count != 1)} in {num_rows} rows ({examples}); classification needs 2 to "
            f"{MAX_CLASSES}; choose another column with label = (on the command line --label), "
            'or set objective = "regression" for numbers'
        )


def one_kind(read: Counter[str]) -> Counter[str]:
    """Merge labels as written into classes: whole numbers, or names.

    Example:
        >>> one_kind(Counter({"1": 2, "1.0": 1, "nan": 1})), one_kind(Counter({"01": 1, "1": 1}))
        (Counter({'1': 3}), Counter({'01': 1, '1': 1}))
    """
    certain = {name: n for name, n in read.items() if name.casefold() not in MISSING_WORDS}
    numbers = {name: whole_number(name) for name in certain}
    if not certain or None in numbers.values():
        return read
    merged = Counter[str]()
    for name, count in certain.items():
        merged[str(numbers[name])] += count
    return merged


def _are_whole(classes: Iterable[str]) -> bool:
    return all(whole_number(name) is not None for name in classes)


def label_notes(read: Counter[str], column: str, *, whole: bool = True) -> Iterator[str]:
    """Possible mistakes among the classes of a column. They are only reported; nothing is changed.

    Args:
        read: class → number of train rows.
        whole: whether all rows were read, rather than the first ones of a long file.
    """
    total = read.total()
    single = [name for name, rows in read.items() if rows == 1]
    if whole and single and len(read) > 1 and total >= FEW_ROWS:
        yield (
            f"label column {column!r}: classes with one row: {len(single):,} of {len(read):,} "
            f"({shown(single)}); a class needs 2 rows to be both trained on and judged, so add "
            "rows, merge such classes, or remove them"
        )
    for name, count in read.most_common(1):
        if len(read) > 1 and count >= ONE_CLASS * total:
            yield (
                f"label column {column!r}: {count / total:.1%} of the rows are {shown([name])}, so "
                "always predicting it gives that accuracy; add rows of the other classes, and "
                "look at matthews or f1 instead of accuracy"
            )
    for sign in SEPARATORS:
        joined = [n for n in read if sign in n and all(p.strip() in read for p in n.split(sign))]
        if joined:
            yield (
                f"label column {column!r}: {shown(joined)} ({sum(read[n] for n in joined):,} rows) "
                f"look like several labels joined by {sign!r}, and each is a class of its own; "
                "give such a row one label, or remove it"
            )
    if not _are_whole(read):
        yield from _notes_of_names(read, column)


def _notes_of_names(read: Counter[str], column: str) -> Iterator[str]:
    missing = [name for name in read if name.casefold() in MISSING_WORDS]
    words = [name for name in read if name not in missing and not _reads_as_number(name)]
    numbers = [name for name in read if whole_number(name) is not None]
    if words and numbers:
        few, kind = (numbers, "numbers") if len(numbers) <= len(words) else (words, "words")
        yield (
            f"label column {column!r} mixes names and numbers, so every label is a class as "
            f"written: also the {kind} {shown(few)} ({sum(read[name] for name in few):,} rows)"
        )
    for name in missing:
        yield (
            f"label column {column!r}: {name!r} ({read[name]:,} rows) is treated as a class; if it "
            "means a missing label, remove these rows or list the classes with label_names ="
        )
    alike: dict[str, list[str]] = {}
    for name in sorted(read):
        alike.setdefault(plain_name(name), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            counts = ", ".join(f"{shown([name])} ({read[name]:,} rows)" for name in names)
            yield (
                f"label column {column!r}: {counts} are {len(names)} classes with almost the same "
                "spelling; if they are one class, spell them the same"
            )


def _reads_as_number(name: str) -> bool:
    return not isinstance(number_as_written(name), Unreadable)
