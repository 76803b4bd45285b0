"""How the gold answers of each kind of task are stored in a file: the table `GOLD`."""

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


def _numbers(rows: Taken, classes: Classes, may_lack: bool) -> Settled:
    return settle_labels(rows, None, may_lack)


@dataclass(frozen=True)
class GoldColumn:
    """How the answers of one kind of task are stored and read."""

    setting: Literal["label", "target"]
    """The setting that names the answer column."""
    settle: Callable[[Taken, Classes, bool], Settled]
    """(rows, classes, whether rows may lack an answer) → kept rows and rows set aside."""
    find: Callable[[Iterable[Any], str], tuple[tuple[str, ...], tuple[str, ...]]] | None = None
    """(labels of train, column) → the classes, and notes for the user; None: there are no
    classes."""
    read: Callable[[Record, Columns, Sequence[str] | None], Record | Unreadable] | None = None
    """(record, columns, names of tags) → the record with its text and, as label, its marks; None:
    the record is used unchanged."""
    is_optional: bool = False
    """For text pairs: the column is optional. Without it, the two texts of each row match; it is
    read if it exists or is named."""
    pairs: tuple[tuple[str, str], ...] = PLAIN_PAIRS
    """Pairs of columns that are recognized as text pairs."""
    names: tuple[str, ...] = ()
    """Column names to look for, in this order, if the setting is not set."""
    texts: tuple[str, ...] = PLAIN_TEXT
    """Column names that are recognized as the text, if `text` is not set."""


GOLD: Mapping[Gold, GoldColumn] = {
    "class": GoldColumn("label", settle_labels, find_classes),
    "labels": GoldColumn("label", settle_sets, find_classes),
    "number": GoldColumn("label", _numbers),
    "relevance": GoldColumn("label", _numbers, is_optional=True),
    "similarity": GoldColumn("label", _numbers, is_optional=True),
    "itself": GoldColumn("label", settle_labels),  # not read, and never guessed to be the text
    "text": GoldColumn("target", lambda rows, _, may_lack: settle_targets(rows, may_lack)),
    "tags": GoldColumn(
        "label",
        lambda rows, classes, may_lack: settle_marks(rows, classes.names, may_lack),
        find_tags,
        read_tagged,
        names=("tags", "ner_tags", "labels", "spans", "entities"),
        texts=("tokens", "words", *PLAIN_TEXT),
        pairs=(),
    ),
    "quotes": GoldColumn(
        "label",
        lambda rows, _, may_lack: settle_marks(rows, None, may_lack),
        read=read_quoted,
        names=("answers",),
        texts=(),
        pairs=(("question", "context"), ("question", "passage"), ("question", "text")),
    ),
}
