"""Convert the answers to a question to marks in its context.

    SQuAD on the hub            answers = {"text": ["Rome"], "answer_start": [7]}
    SQuAD's own files           answers = [{"text": "Rome", "answer_start": 7}]
    two columns                 answers = ["Rome"], answer_start = [7]

No answer (an empty list) means that the context does not answer the question, as in SQuAD 2.0. The
first answer is the training target; predictions are compared with all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.records import Record
from attar.data.reading.rows import Columns
from attar.data.tables import Marks
from attar.tasks.tagging import Mark

START = "answer_start"


def read_quoted(
    record: Record, columns: Columns, names: Sequence[str] | None
) -> Record | Unreadable:
    """A record with `Marks`, which refer to its last text, in place of its answers."""
    if columns.label is None or record.get(columns.label) is None:
        return record
    found = _pairs(record[columns.label], record.get(START))
    context = record.get(columns.text[-1])
    if found is None:
        return Unreadable(f"{columns.label} is not a list of texts with their {START}")
    if not isinstance(context, str):
        return record  # the reader of the text reports this
    marks: list[Mark] = []
    for text, begin in found:
        if type(begin) is not int or not isinstance(text, str) or not text:
            return Unreadable(f"an answer is not a text with its {START}")
        if begin < 0 or context[begin : begin + len(text)] != text:
            return Unreadable(f"an answer is not found in the text at its {START}")
        marks.append((begin, begin + len(text), ""))
    return record | {columns.label: Marks(tuple(marks))}


def _pairs(answers: Any, starts: Any) -> list[tuple[Any, Any]] | None:
    """Text and first character of each answer; None: not one of the three formats."""
    if isinstance(answers, list) and all(isinstance(one, Mapping) for one in answers) and answers:
        return [(one.get("text"), one.get(START)) for one in answers]
    texts = answers.get("text") if isinstance(answers, Mapping) else answers
    starts = answers.get(START) if isinstance(answers, Mapping) else starts
    if texts == [] and not starts:
        return []
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return None
    return list(zip(texts, starts, strict=True))
