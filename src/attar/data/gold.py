"""How the answers of a task stand in a file, by what they are: the table `GOLD`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.label_sets import settle_sets
from attar.data.reading.labels import Classes, find_classes
from attar.data.reading.marks import find_tags, read_tagged, settle_marks
from attar.data.reading.quotes import read_quoted
from attar.data.reading.records import Record
from attar.data.reading.rows import Columns, Taken, settle_labels, settle_targets
from attar.data.tables import Settled
from attar.tasks.table import Gold

PLAIN_TEXT = ("text", "sentence", "content", "document", "review", "question")
PLAIN_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)


def _labels(rows: Taken, column: str | None, classes: Classes, may_lack: bool) -> Settled:
    return settle_labels(rows, classes, may_lack_labels=may_lack)


def _sets(rows: Taken, column: str | None, classes: Classes, may_lack: bool) -> Settled:
    return settle_sets(rows, classes, may_lack_labels=may_lack)


def _numbers(rows: Taken, column: str | None, classes: Classes, may_lack: bool) -> Settled:
    return settle_labels(rows, None, may_lack_labels=may_lack)


def _targets(rows: Taken, column: str | None, classes: Classes, may_lack: bool) -> Settled:
    return settle_targets(rows, column, may_lack_targets=may_lack)


def _marks(rows: Taken, column: str | None, classes: Classes, may_lack: bool) -> Settled:
    return settle_marks(rows, classes.names, may_lack_marks=may_lack)


def _quotes(rows: Taken, column: str | None, classes: Classes, may_lack: bool) -> Settled:
    return settle_marks(rows, None, may_lack_marks=may_lack)


@dataclass(frozen=True)
class GoldColumn:
    """How the answers stand in a file."""

    setting: Literal["label", "target"]
    """The setting that names their column."""
    settle: Callable[[Taken, str | None, Classes, bool], Settled]
    """(rows, column, classes, may rows lack an answer) → the rows that are kept, and the others."""
    find: Callable[[Iterable[Any], str], tuple[tuple[str, ...], tuple[str, ...]]] | None = None
    """(labels of train, column) → the classes, and notes for the user; None: there are none."""
    read: Callable[[Record, Columns, Sequence[str] | None], Record | Unreadable] | None = None
    """(record, columns, names of tags) → the record with a text, and what is marked in it as its
    label; None: as it is."""
    is_optional: bool = False
    """Of two texts: data may have no such column, and then the two belong together; it is read
    where it is there, or named."""
    pairs: tuple[tuple[str, str], ...] = PLAIN_PAIRS
    """Two columns that are."""
    names: tuple[str, ...] = ()
    """Columns that are looked for where the setting is not set, in this order."""
    texts: tuple[str, ...] = PLAIN_TEXT
    """Columns that are taken for the text where `text` is not set."""


GOLD: Mapping[Gold, GoldColumn] = {
    "class": GoldColumn("label", _labels, find_classes),
    "labels": GoldColumn("label", _sets, find_classes),
    "number": GoldColumn("label", _numbers),
    "relevance": GoldColumn("label", _numbers, is_optional=True),
    "similarity": GoldColumn("label", _numbers, is_optional=True),
    "itself": GoldColumn("label", _labels),  # not read, and not taken for the text either
    "text": GoldColumn("target", _targets),
    "tags": GoldColumn(
        *("label", _marks, find_tags, read_tagged),
        names=("tags", "ner_tags", "labels", "spans", "entities"),
        texts=("tokens", "words", *PLAIN_TEXT),
        pairs=(),
    ),
    "quotes": GoldColumn(
        *("label", _quotes, None, read_quoted),
        names=("answers",),
        texts=(),
        pairs=(("question", "context"), ("question", "passage"), ("question", "text")),
    ),
}
