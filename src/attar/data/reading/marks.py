"""Convert the columns of a tagged row to one text and its marks.

    words and a tag per word   ["I", "like", "Rome"], ["O", "O", "B-LOC"], or numbers of label_names
    a text and its spans       "I like Rome", [{"start": 7, "end": 11, "label": "LOC"}] or
                               [[7, 11, "LOC"]], in characters

Words are joined by one space, so that a tokenizer reads them as any other text; the beginning and
end of each word are kept. As for labels, kept rows + rows set aside = rows read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.labels import shown
from attar.data.reading.records import Record
from attar.data.reading.rows import Columns, Taken, settled
from attar.data.tables import UNLABELLED, Marks, Settled, Split
from attar.errors import DataError
from attar.tasks.tagging import TAG, Mark, marks_of_tags, tag_names

START, END, LABEL = ("start", "begin", "start_offset"), ("end", "end_offset"), ("label", "type")
"""Known keys of a span, the usual one first."""


def read_tagged(
    record: Record, columns: Columns, names: Sequence[str] | None
) -> Record | Unreadable:
    """A record with a text in place of its words, and `Marks` in place of its tags or spans.

    Args:
        names: of the tags, if the file has their numbers.
    """
    text, answer = record.get(columns.text[0]), columns.label
    found = None if answer is None else record.get(answer)
    words = None
    if isinstance(text, list):
        if not all(isinstance(word, str) for word in text):
            return Unreadable(f"{columns.text[0]} has words that are not texts")
        text, words = joined(text)
    if found is not None:
        found = _marks(found, text, words, names)
    if isinstance(found, Unreadable):
        return found
    return record | {columns.text[0]: text, **({} if answer is None else {answer: found})}


def joined(words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Join words with spaces, and locate the beginning and end of each.

    Example:
        >>> joined(["New", "York"])
        ('New York', ((0, 3), (4, 8)))
    """
    places, begin = [], 0
    for word in words:
        places.append((begin, begin + len(word)))
        begin += len(word) + 1
    return " ".join(words), tuple(places)


def _marks(
    found: Any,
    text: Any,
    words: tuple[tuple[int, int], ...] | None,
    names: Sequence[str] | None,
) -> Marks | Unreadable:
    if not isinstance(found, list):
        return Unreadable("its tags or spans are not a list")
    if words is None:
        return _of_spans(found, text)
    if len(found) != len(words):
        return Unreadable("the numbers of tags and words differ")
    tags: list[str] = []
    for tag in found:
        if type(tag) is int and names is not None and 0 <= tag < len(names):
            tag = names[tag]
        if type(tag) is int:
            return Unreadable("tags are numbers beyond label_names")
        if not isinstance(tag, str) or not TAG.fullmatch(tag):
            return Unreadable(f"tag {shown([str(tag)])} is not one of O, B-…, I-…, E-… and S-…")
        tags.append(tag)
    marks = marks_of_tags(tags)
    return Marks(tuple((words[a][0], words[b - 1][1], label) for a, b, label in marks), words)


def _of_spans(found: Iterable[Any], text: Any) -> Marks | Unreadable:
    if not isinstance(text, str):
        return Unreadable("the row has spans, but its text is not a string")
    marks: list[Mark] = []
    for span in found:
        mark = _span(span)
        if mark is None:
            return Unreadable("a span is not start, end and label")
        if not 0 <= mark[0] < mark[1] <= len(text):
            return Unreadable("a span is not inside its text")
        marks.append(mark)
    marks.sort()
    if any(one[1] > following[0] for one, following in pairwise(marks)):
        return Unreadable("spans overlap")
    return Marks(tuple(marks))


def _span(span: Any) -> Mark | None:
    if isinstance(span, Mapping):
        span = [next((span[k] for k in keys if k in span), None) for keys in (START, END, LABEL)]
    if not isinstance(span, list | tuple) or len(span) != 3:
        return None
    begin, end, label = span
    is_mark = type(begin) is int and type(end) is int and isinstance(label, str) and label
    return (begin, end, label) if is_mark else None


def find_tags(found: Iterable[Any], column: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tag names that a model can predict: the labels marked in train.

    Raises:
        DataError: nothing is marked.
    """
    rows = [marks for marks in found if isinstance(marks, Marks)]
    labels = {label for marks in rows for _, _, label in marks.marks}
    if not labels:
        raise DataError(
            f"column {column!r} of split 'train' has no spans in {len(rows)} rows; name the column "
            "of tags or spans with label ="
        )
    return tag_names(labels), ()


def settle_marks(taken: Taken, names: Sequence[str] | None, may_lack: bool = False) -> Settled:
    """Attach to every row its marks, or set the row aside.

    Args:
        names: the known tags; None: marks have no labels.
        may_lack: keep rows without marks of their own, as None.
    """
    known = None if names is None else {name.partition("-")[2] for name in names}

    def read(found: Marks | None) -> Marks | Unreadable | None:
        if found is None:
            return None if may_lack else Unreadable("unlabelled")
        other = [label for _, _, label in found.marks if known is not None and label not in known]
        return Unreadable(f"unknown label {shown(other[:1])}") if other else found

    texts, marks, set_aside = settled(taken, read)
    unlabelled = np.full(len(texts), UNLABELLED, dtype=np.int64)
    return Split(texts, unlabelled, marks=tuple(marks)), set_aside
