"""From records to labelled texts: a row is kept, or it is set aside with its reason.

The problem: real files hold rows without a text, with a NaN for a label, with a class that training
never saw. Dropping them silently falsifies every figure; stopping at the first wastes a day. The
idea: two passes. `take_texts` looks at one row at a time and needs nothing else; `settle_labels`
then knows all labels of train, so it can say what a class is.

    kept + set aside = read

Above a share of `max_set_aside` in a split the loading stops and lists the counts by reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

import numpy as np

from attar.data.reading.byte_lines import (
    MAX_ROW_BYTES,
    Unreadable,
    fault_of_encoding,
    too_long,
)
from attar.data.reading.labels import (
    EXAMPLES_SHOWN,
    Classes,
    Missing,
    number_as_written,
    shown,
)
from attar.data.reading.records import Record
from attar.data.tables import UNLABELLED, SetAside, Settled, Split
from attar.errors import DataError

T = TypeVar("T")
MAX_REASONS = 20
"""Reasons distinguished in the labels of a split: a file may hold a million different wrong
ones."""
MAX_CLASSES_SHOWN = 12
KINDS = {bool: "a truth value", list: "a list", dict: "an object"}
"""What JSON may hold in the place of a text."""
ADVICE = {
    "not UTF-8": "  save the file as UTF-8 (in a spreadsheet: CSV UTF-8)",
    "longer than": "  raise max_row_kib in the data table to accept longer rows",
}
"""How a reason begins → what to do about such rows."""
MAX_FAULTS = 1_000_000
"""More unusable rows than this are not even counted: a gigabyte of empty objects must not fill
memory."""
MAX_CHARACTERS = 16 * 2**30
"""Of the texts of a split, which are held in memory: no machine that we know of can hold more."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a record are its text or texts, its label, and its id."""

    text: tuple[str, ...]
    label: str | None
    """None: the rows are unlabelled."""
    id: str | None = None
    """Its values must differ from row to row; None, or a row without it: not looked at."""
    max_bytes: int = MAX_ROW_BYTES
    """Of a text."""


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
    characters = 0
    for row, record in enumerate(records):
        taken.num_read += 1
        read = record if isinstance(record, Unreadable) else read_row(record, columns, ids)
        if isinstance(read, Unreadable):
            taken.set_aside.append(SetAside(split, row, read.reason))
            if len(taken.set_aside) > MAX_FAULTS:
                raise DataError(
                    f"split {split!r}: more than {MAX_FAULTS} of its first {row + 1} rows cannot "
                    f"be used (the last one: {read.reason}); look at the file"
                )
        else:
            texts, label = read
            characters += sum(map(len, texts))
            if characters > MAX_CHARACTERS:
                raise DataError(
                    f"split {split!r}: its first {row + 1:,} rows have more than "
                    f"{MAX_CHARACTERS:,} characters, too many to hold in memory; use "
                    'fewer rows, or read it as a corpus (run = "tokenize")'
                )
            taken.texts.append(texts)
            taken.labels.append(label)
            taken.rows.append(row)
    return taken


def read_row(
    record: Record, columns: Columns, ids: set[str]
) -> tuple[tuple[str, ...], Any] | Unreadable:
    """A row's texts and its label, or why it cannot be used; its id is added to those seen."""
    texts: list[str] = []
    for name in columns.text:
        text = text_of(name, record.get(name), columns.max_bytes)
        if isinstance(text, Unreadable):
            return text
        texts.append(text)
    if columns.label is not None and columns.label not in record:
        return Unreadable(f"no {columns.label}")
    if columns.id is not None and columns.id in record:
        identity = repr(record[columns.id])
        if identity in ids:
            return Unreadable(f"duplicate {columns.id}")
        ids.add(identity)
    return tuple(texts), None if columns.label is None else record[columns.label]


def text_of(name: str, value: Any, limit: int = MAX_ROW_BYTES) -> str | Unreadable:
    """The text that stands in column `name`, or why it cannot be used; a number is the text it is
    written as. A text of more bytes than the limit cannot be."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if value is None or (is_number and value != value):  # NaN: a missing value
        return Unreadable(f"no {name}")
    text = str(value) if is_number else value
    if not isinstance(text, str):
        return Unreadable(f"{name} is not a text but {KINDS.get(type(value), 'something else')}")
    if not text.strip():
        return Unreadable(f"empty {name}")
    if "\0" in text:
        return Unreadable(f"NUL byte in {name}")
    if len(text) > limit // 4 and len(text.encode("utf-8", "replace")) > limit:
        return too_long(limit)
    return fault_of_encoding(text) or text


def settled(
    taken: Taken, read: Callable[[Any], T | Unreadable]
) -> tuple[tuple[tuple[str, ...], ...], list[T], list[SetAside]]:
    """Second pass: the texts and the answers of the rows whose answer can be read, and all rows of
    the split that were set aside in both passes, in order; beyond `MAX_REASONS` reasons, one."""
    texts: list[tuple[str, ...]] = []
    answers: list[T] = []
    set_aside = list(taken.set_aside)
    reasons: set[str] = set()
    for text, row, value in zip(taken.texts, taken.rows, taken.labels, strict=True):
        answer = read(value)
        if isinstance(answer, Unreadable):
            known = answer.reason in reasons or len(reasons) < MAX_REASONS
            reason = answer.reason if known else "another label that cannot be used"
            reasons.add(reason)
            set_aside.append(SetAside(taken.split, row, reason))
        else:
            texts.append(text)
            answers.append(answer)
    return tuple(texts), answers, sorted(set_aside, key=lambda fault: fault.row)


def settle_labels(
    taken: Taken, classes: Classes | None, *, may_lack_labels: bool = False
) -> Settled:
    """Every label becomes its class (or number), or its row is set aside.

    Args:
        classes: None: the labels are numbers, for a regression.
        may_lack_labels: keep rows without a label, as `UNLABELLED` (or NaN).
    """
    place = number_as_written if classes is None else classes.place_of
    no_label = math.nan if classes is None else UNLABELLED

    def read(value: Any) -> float | Unreadable:
        label = place(value)
        return no_label if may_lack_labels and isinstance(label, Missing) else label

    texts, labels, set_aside = settled(taken, read)
    dtype = np.float32 if classes is None else np.int64
    return Split(texts, np.array(labels, dtype=dtype)), set_aside


def settle_targets(taken: Taken, column: str | None, *, may_lack_targets: bool = False) -> Settled:
    """Every answer is a target text, or its row is set aside. An empty target is no answer.

    Args:
        column: where the targets stand; None: there are none.
        may_lack_targets: keep rows without a target, as in a hidden test set, as "".
    """

    def read(value: Any) -> str | Unreadable:
        text = text_of(column or "target", value)
        return "" if may_lack_targets and isinstance(text, Unreadable) else text

    texts, targets, set_aside = settled(taken, read)
    unlabelled = np.full(len(texts), UNLABELLED, dtype=np.int64)
    return Split(texts, unlabelled, tuple(targets)), set_aside


def check_set_aside(
    name: str,
    split: str,
    num_read: int,
    set_aside: Sequence[SetAside],
    limit: float,
    classes: Sequence[str] = (),
) -> None:
    """Stop when too much of a split is unusable, or all of it, or there was nothing.

    Args:
        classes: those of the data, said where a label is none of them.
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
    if classes and any(reason.startswith("unknown label") for reason in counts):
        lines.append(
            f"  the classes are {shown(classes, MAX_CLASSES_SHOWN)}: the labels of train, or "
            "label_names where it is set"
        )
    lines += advice_on(counts)
    enough = math.ceil(100 * len(set_aside) / num_read) / 100
    raise DataError(
        f"split {split!r} of data {name!r}: {len(set_aside)} of {num_read} rows cannot be used "
        f"({len(set_aside) / num_read:.1%}; max_set_aside allows {limit:.1%}); fix these rows, or "
        f"raise the limit: --set data.{name}.max_set_aside={enough} (rows are counted from 0)",
        lines,
    )


def advice_on(reasons: Iterable[str]) -> list[str]:
    """What to do about rows that were set aside, where the reason does not say it."""
    return [line for start, line in ADVICE.items() if any(r.startswith(start) for r in reasons)]


def _first(set_aside: Sequence[SetAside], reason: str) -> list[SetAside]:
    return [fault for fault in set_aside if fault.reason == reason][:EXAMPLES_SHOWN]
