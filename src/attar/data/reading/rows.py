"""Convert records to labelled texts: each row is kept, or set aside with a reason.

The problem: real files contain rows without a text, with NaN as label, or with a class that is not
in train. Dropping them silently would distort every metric; stopping at the first would waste a
day. The idea: two passes. `take_texts` looks at one row at a time and needs no context;
`settle_labels` knows all labels of train, and therefore the classes.

    kept + set aside = read

If more than the share `max_set_aside` of a split is set aside, loading stops and lists the counts
by reason.
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
"""Maximum number of different reasons per split: a file may contain a million different wrong
labels."""
MAX_CLASSES_SHOWN = 12
KINDS = {bool: "a truth value", list: "a list", dict: "an object"}
"""JSON values that may occur instead of a text."""
ADVICE = {
    "not UTF-8": "  save the file as UTF-8 (in a spreadsheet: CSV UTF-8)",
    "longer than": "  raise max_row_kib in the data table to accept longer rows",
}
"""Beginning of a reason → advice for such rows."""
MAX_FAULTS = 1_000_000
"""Reading stops after this many unusable rows: a gigabyte of empty objects must not fill memory."""
MAX_CHARACTERS = 16 * 2**30
"""Maximum number of characters in the texts of a split, which are held in memory."""


@dataclass(frozen=True)
class Columns:
    """The columns of a record with its text or texts, its label, and its id."""

    text: tuple[str, ...]
    label: str | None
    """None if the rows are unlabelled."""
    id: str | None = None
    """Column whose values must be unique; None, or a row without it: not checked."""
    max_bytes: int = MAX_ROW_BYTES
    """Maximum size of a text."""


@dataclass
class Taken:
    """Rows of a split with usable texts and unparsed labels, in order; and the rows set aside."""

    split: str
    column: str | None = None
    """Column of the labels; None: unlabelled."""
    texts: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    num_read: int = 0


def take_texts(records: Iterable[Record | Unreadable], columns: Columns, split: str) -> Taken:
    """First pass: keep rows with usable texts; labels are not parsed yet."""
    taken = Taken(split, columns.label)
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
    """A row's texts and its label, or why it is unusable. Adds its id to `ids`."""
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
    """The text in column `name`, or why it is unusable. A number is converted to text; a text
    longer than `limit` bytes is unusable."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if value is None or (is_number and value != value):  # NaN means a missing value
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
    """Second pass: texts and answers of the rows whose answer can be parsed, and all rows set aside
    in both passes, in order. After `MAX_REASONS` different reasons, further ones are merged into
    one."""
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


def settle_labels(taken: Taken, classes: Classes | None, may_lack: bool = False) -> Settled:
    """Convert every label to its class (or number), or set its row aside.

    Args:
        classes: None: the labels are numbers, for regression.
        may_lack: keep rows without a label, as `UNLABELLED` (or NaN).
    """
    place = number_as_written if classes is None else classes.place_of
    no_label = math.nan if classes is None else UNLABELLED

    def read(value: Any) -> float | Unreadable:
        label = place(value)
        return no_label if may_lack and isinstance(label, Missing) else label

    texts, labels, set_aside = settled(taken, read)
    dtype = np.float32 if classes is None else np.int64
    return Split(texts, np.array(labels, dtype=dtype)), set_aside


def settle_targets(taken: Taken, may_lack: bool = False) -> Settled:
    """Convert every answer to a target text, or set its row aside. An empty target does not count
    as an answer.

    Args:
        may_lack: keep rows without a target, as in a hidden test set, as "".
    """

    def read(value: Any) -> str | Unreadable:
        text = text_of(taken.column or "target", value)
        return "" if may_lack and isinstance(text, Unreadable) else text

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
    """Raise DataError if a split is empty, or if too many or all of its rows are unusable.

    Args:
        classes: classes of the data, listed if a label is not one of them.
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
    """Advice for rows that were set aside, for reasons that need it."""
    return [line for start, line in ADVICE.items() if any(r.startswith(start) for r in reasons)]


def _first(set_aside: Sequence[SetAside], reason: str) -> list[SetAside]:
    return [fault for fault in set_aside if fault.reason == reason][:EXAMPLES_SHOWN]
