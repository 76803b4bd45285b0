"""A .json file as rows: SQuAD's own files, or a list of objects.

    SQuAD             {"data": [{"paragraphs": [{"context", "qas": [{"question", "answers"}]}]}]},
                      version 1.1 or 2.0 → a row per question: id, title, context, question, answers
    list of objects   [{…}, {…}], or {"data": [{…}, {…}]} → its objects

The file is read as a whole. Version 2.0's "plausible answers" to unanswerable questions are not
answers and are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attar.data.reading.byte_lines import Unreadable, read_lines
from attar.errors import DataError

MAX_JSON_BYTES = 2**30
"""For comparison, SQuAD's train file has 42 MB."""
NOT_AN_OBJECT = Unreadable("not a JSON object")


def read_json_rows(file: Path) -> Iterator[dict[str, Any] | Unreadable]:
    """The rows of a .json file, in order.

    Raises:
        DataError: the file is damaged, not JSON, or in neither of the two formats.
    """
    lines = list(read_lines(file, MAX_JSON_BYTES))
    if any(isinstance(line, Unreadable) for line in lines):
        raise DataError(f"{file} is larger than {MAX_JSON_BYTES:,} bytes; write it as .jsonl")
    try:
        content = json.loads(b"\n".join(line for line in lines if isinstance(line, bytes)))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file} is not JSON ({error}); fetch it again, or use a .jsonl file with one object "
            "per line"
        ) from error
    rows = content.get("data") if isinstance(content, Mapping) else content
    if not isinstance(rows, list):
        raise DataError(
            f"{file} is neither a list of objects nor in SQuAD format; use a .jsonl file with one "
            "object per line"
        )
    for row in rows:
        if isinstance(row, dict) and "paragraphs" in row:
            yield from _questions(row)
        else:
            yield row if isinstance(row, dict) else NOT_AN_OBJECT


def _questions(article: Mapping[str, Any]) -> Iterator[dict[str, Any] | Unreadable]:
    paragraphs: Any = article["paragraphs"]
    for paragraph in paragraphs if isinstance(paragraphs, list) else [{}]:
        about: Mapping[str, Any] = paragraph if isinstance(paragraph, Mapping) else {}
        asked = about.get("qas")
        if not isinstance(asked, list):
            yield Unreadable("a paragraph without questions")
            continue
        about = {"title": article.get("title"), "context": about.get("context")}
        for one in asked:
            if not isinstance(one, Mapping):
                yield NOT_AN_OBJECT
                continue
            found = {name: one[name] for name in ("id", "question", "answers") if name in one}
            yield about | found
