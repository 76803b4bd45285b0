"""Summarize rows in one pass, with memory independent of their number.

    classes      counted up to MAX_CLASSES different labels; a column with more holds no classes
    lengths      of evenly spread rows (`lengths`)
    repeated     by 64-bit hashes. When there are more than MAX_HASHES, only hashes that end in a
                 zero bit are kept, then in two, …: equal texts have equal hashes, so a count among
                 the 1 in 2^k that is kept, times 2^k, is an unbiased estimate

Not included: near duplicates (a select step finds them), and chunks of a corpus.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from attar.data.config import FilesData
from attar.data.files import find_columns, marked_records_of, text_hash
from attar.data.look.broken_texts import BrokenTexts
from attar.data.look.lengths import WORDS, Measure, Measured
from attar.data.look.summary import DataSummary, SplitSummary, notes_between
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.labels import (
    MAX_CLASSES,
    Classes,
    Missing,
    label_as_written,
    label_notes,
    number_as_written,
    one_kind,
)
from attar.data.reading.locate import own_files
from attar.data.reading.records import Record
from attar.data.reading.rows import Columns, read_row
from attar.data.tables import UNLABELLED, UNLABELLED_SPLIT, TextData
from attar.tasks.table import Gold

MAX_HASHES = 2**17
MAX_REASONS = 20
FIRST_CHARACTERS = 2**21
"""Maximum number of characters to read of each split if only the first rows are looked at."""

Label = str | float | tuple[str, ...] | None
"""A class, a number, any of several classes, or None for a row without a label."""
Row = tuple[tuple[str, ...], Label] | Unreadable
"""A row's texts and label, or why it cannot be used."""


@dataclass
class _Seen:
    """Texts by hash, keeping only hashes whose lowest `level` bits are zero."""

    splits: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    """Split → hash → number of rows, first label, and number of rows with a different label."""
    level: int = 0

    def add(self, split: str, texts: tuple[str, ...], label: Label) -> None:
        key = int(text_hash(texts)[:16], 16)
        if key & (2**self.level - 1):
            return
        seen = self.splits.setdefault(split, {})
        if key in seen:
            entry = seen[key]
            entry[0] += 1
            entry[2] += entry[1] != hash(label)
            return
        seen[key] = [1, hash(label), 0]
        if sum(map(len, self.splits.values())) > MAX_HASHES:
            self.level += 1
            low = 2**self.level - 1
            self.splits = {
                split: {key: entry for key, entry in seen.items() if not key & low}
                for split, seen in self.splits.items()
            }

    def repeated(self, split: str) -> int:
        return sum(entry[0] - 1 for entry in self.splits.get(split, {}).values()) << self.level

    def contradicting(self, split: str) -> int:
        return sum(entry[2] for entry in self.splits.get(split, {}).values()) << self.level

    def shared(self, split: str, other: str) -> int:
        known = self.splits.get(other, {})
        rows = self.splits.get(split, {}).items()
        return sum(entry[0] for key, entry in rows if key in known) << self.level


class _Labels:
    """Class counts, or the range of numbers."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        """At most MAX_CLASSES + 1 classes are counted."""
        self.missing = self._num_numbers = 0
        self._total, self._low, self._high = 0.0, math.inf, -math.inf

    def add(self, label: Label) -> None:
        if label is None:
            self.missing += 1
        elif isinstance(label, str | tuple):
            for name in (label,) if isinstance(label, str) else label:
                if name in self.counts or len(self.counts) <= MAX_CLASSES:
                    self.counts[name] += 1
        else:
            self._num_numbers += 1
            self._total += label
            self._low, self._high = min(self._low, label), max(self._high, label)

    @property
    def numbers(self) -> tuple[float, float, float] | None:
        if not self._num_numbers:
            return None
        return self._low, self._total / self._num_numbers, self._high


def summarize(
    name: str,
    splits: Mapping[str, Iterable[Row]],
    measure: Measure = WORDS,
    *,
    column: str | None = None,
    is_labelled: bool = True,
    first_rows: int | None = None,
) -> DataSummary:
    """Summarize rows in one pass.

    Args:
        splits: split → its rows.
        column: label column, for notes about its class names; None: no such notes.
        is_labelled: False: rows are not expected to have labels.
        first_rows: the maximum number of rows per split, if only the first ones are given.
    """
    seen, broken = _Seen(), BrokenTexts()
    found = {split: _summary(split, rows, measure, seen, broken) for split, rows in splits.items()}
    found = {
        split: replace(
            summary,
            repeated=min(seen.repeated(split), summary.rows),
            contradicting=min(seen.contradicting(split), summary.rows),
            in_train=min(seen.shared(split, "train"), summary.rows) * (split != "train"),
            unlabelled=summary.unlabelled if is_labelled else 0,
        )
        for split, summary in found.items()
    }
    classes = found["train"].classes if column is not None and "train" in found else {}
    return DataSummary(
        name=name,
        splits=found,
        unit=measure.unit,
        first_rows=first_rows,
        is_estimate=seen.level > 0,
        notes=(
            *label_notes(Counter(classes), column or "", whole=first_rows is None),
            *notes_between(found),
            *broken.notes(),
        ),
    )


def _summary(
    split: str, rows: Iterable[Row], measure: Measure, seen: _Seen, broken: BrokenTexts
) -> SplitSummary:
    lengths, labels, reasons, num_rows = Measured(measure), _Labels(), Counter[str](), 0
    for row in rows:
        if isinstance(row, Unreadable):
            known = row.reason in reasons or len(reasons) < MAX_REASONS
            reasons[row.reason if known else "another reason"] += 1
            continue
        texts, label = row
        num_rows += 1
        labels.add(label)
        lengths.add(texts)
        seen.add(split, texts, label)
        broken.add(texts)
    classes = one_kind(labels.counts)
    return SplitSummary(
        rows=num_rows,
        classes=dict(classes.most_common()) if len(classes) <= MAX_CLASSES else {},
        num_labels=len(classes),
        numbers=labels.numbers,
        unlabelled=labels.missing,
        lengths=lengths.result(),
        set_aside=dict(reasons.most_common()),
    )


def summary_of(data: TextData, measure: Measure = WORDS) -> DataSummary:
    """Summarize data in memory, keeping the data's own notes about labels."""
    found = summarize(
        data.name,
        {name: _in_memory(data, name) for name in data.splits if data.splits[name].chunks is None},
        measure,
        is_labelled=data.kind.may_be_words,
    )
    return replace(found, notes=(*data.notes, *found.notes))


def _in_memory(data: TextData, name: str) -> Iterator[Row]:
    split = data.splits[name]
    names = data.label_names
    for texts, label in zip(split.texts, split.labels.tolist(), strict=True):
        if isinstance(label, list):
            right = tuple(name for name, is_right in zip(names, label, strict=True) if is_right)
            yield texts, None if UNLABELLED in label else right
            continue
        is_number = not names and data.kind.is_score and not math.isnan(label)
        is_class = bool(names) and label != UNLABELLED
        yield texts, names[label] if is_class else label if is_number else None
    for reason, count in data.set_aside_of(name).items():
        yield from repeat(Unreadable(reason), count)


def summary_of_files(
    config: FilesData,
    recipe_folder: Path,
    name: str,
    measure: Measure = WORDS,
    *,
    first_rows: int | None = None,
) -> DataSummary:
    """Summarize files by streaming them; no validation split is held out.

    Args:
        first_rows: number of rows to read per split; None: all.
    """
    files = own_files(config, recipe_folder)
    columns = find_columns(config, files, name)
    named = _class_of(config.label_names) if config.kind.may_be_words else None
    read_label = named or LABELS.get(config.kind.gold)

    def rows(split: str) -> Iterator[Row]:
        records = marked_records_of(config, files[split], columns[split])
        records = _first(records, first_rows)
        may_lack = split in ("test", UNLABELLED_SPLIT)
        return (_read(record, columns[split], read_label, may_lack) for record in records)

    column = config.label if config.kind.has_classes else None
    return summarize(
        name,
        {split: rows(split) for split in columns},
        measure,
        column=column,
        is_labelled=config.kind.may_be_words,
        first_rows=first_rows,
    )


def _first(
    records: Iterator[Record | Unreadable], count: int | None
) -> Iterator[Record | Unreadable]:
    """The first `count` rows, or fewer if they exceed FIRST_CHARACTERS in total."""
    left = FIRST_CHARACTERS
    for record in islice(records, count):
        yield record
        if count is not None and isinstance(record, dict):
            left -= sum(len(value) for value in record.values() if isinstance(value, str))
            if left < 0:
                return


ReadLabel = Callable[[Any], str | float | Unreadable]
LABELS: Mapping[Gold, ReadLabel] = {"class": label_as_written, "number": number_as_written}
"""Kind of gold answer → function that reads a cell."""


def _class_of(names: tuple[str, ...] | None) -> ReadLabel | None:
    """Function that reads a label if the classes are set; None if they are not."""
    if names is None:
        return None
    classes = Classes(names, may_be_indices=True)

    def read(value: Any) -> str | Unreadable:
        place = classes.place_of(value)
        return place if isinstance(place, Unreadable) else names[place]

    return read


def _read(
    record: Record | Unreadable, columns: Columns, read_label: ReadLabel | None, may_lack: bool
) -> Row:
    read = record if isinstance(record, Unreadable) else read_row(record, columns, set())
    if isinstance(read, Unreadable):
        return read
    texts, value = read
    if columns.label is None or read_label is None:
        return texts, None
    label = read_label(value)
    if isinstance(label, Missing) and may_lack:
        return texts, None
    return label if isinstance(label, Unreadable) else (texts, label)
