"""Guess the delimiter and header of a table from its first lines; also the definition of a
guess."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from attar.data.gold import PLAIN_TEXT
from attar.data.reading.byte_lines import Unreadable, read_lines
from attar.data.reading.labels import number_as_written
from attar.data.reading.locate import format_of

TaskName = Literal["classes", "numbers", "pairs", "running_text", "unlabelled"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
LINES = 100
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
EVEN = 0.9
"""Minimum share of the lines that a delimiter must split into the same number of columns."""
TEXT_NAMES = (
    *PLAIN_TEXT,
    "message",
    "body",
    "comment",
    "description",
    "utterance",
    "query",
    "tweet",
)
LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "intent", "topic", "sentiment"),
    *("rating", "stars", "score", "grade", "y"),
)
MAX_NAME = 40
"""Maximum length of a column name, in characters; longer values are taken for texts."""
CHANGES = {
    "split": "validation_share, or a folder with train.csv and validation.csv",
    "delimiter": '--delimiter ";"',
    "header": "--header or --no-header",
    "text": "--text NAME, twice for a pair",
    "label": "--label NAME",
    "task": f"--task {', '.join(TASKS)}",
}
"""What is guessed → the option that changes it."""


@dataclass(frozen=True)
class Guess:
    """One property that was guessed or set."""

    what: str
    value: str
    why: str

    @property
    def change(self) -> str:
        """The option that changes it; "": none."""
        return CHANGES.get(self.what, "")


@dataclass(frozen=True)
class Wishes:
    """What the user has set; None: to be guessed."""

    text: tuple[str, ...] = ()
    label: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    task: TaskName | None = None


def form_of(file: Path, wishes: Wishes, table: dict[str, Any]) -> list[Guess]:
    """Guess delimiter and header of a table; write them to `table` if they are not the default."""
    lines = [
        line.decode("utf-8", "replace")
        for line in islice(read_lines(file), LINES)
        if not isinstance(line, Unreadable)
    ]
    usual = "\t" if format_of(file) == ".tsv" else ","
    even = _even(lines, usual)
    is_txt = format_of(file) == ".txt"
    if wishes.delimiter is None and is_txt and not (len(lines) > 2 and even and even[0] != ","):
        return []
    sign = wishes.delimiter or (even[0] if even else usual)
    if sign != usual or is_txt:
        table["delimiter"] = sign
    why = "set" if wishes.delimiter else "the first lines all have the same number of columns"
    if wishes.delimiter is None and not even:
        why = "the usual one; no character splits the first lines into the same number of columns"
    if also := [DELIMITERS[other] for other in even if other != sign]:
        why += f", and with {' or '.join(also)} too"
    guesses = [Guess("delimiter", repr(sign)[1:-1], why)]
    rows = _cut(lines, sign)
    fault = _no_header(rows) if wishes.header is None else ""
    header = not fault if wishes.header is None else wishes.header
    if not header:
        table["header"] = False
    why = fault or (
        "set" if wishes.header is not None else "the first line looks like column names"
    )
    value = "yes" if header else "no (column1, …)"
    return [*guesses, Guess("header", value, why)]


def _cut(lines: Sequence[str], sign: str) -> list[list[str]]:
    """The cells of some lines; empty if they cannot be parsed as a table."""
    try:
        return [row for row in csv.reader(lines, delimiter=sign) if row]
    except csv.Error:
        return []


def _even(lines: Sequence[str], usual: str) -> list[str]:
    """Delimiters that split most lines into the same number of columns, at least two; best
    first."""
    found: list[tuple[float, bool, int, str]] = []
    for sign in DELIMITERS:
        widths = Counter(map(len, _cut(lines, sign)))
        width, count = next(iter(widths.most_common(1)), (0, 0))
        share = count / max(1, widths.total())
        if width > 1 and share >= EVEN:
            found.append((share, sign == usual, width, sign))
    best = max(found, default=(0.0,))[0]
    return [sign for share, *_, sign in sorted(found, reverse=True) if share == best]


def _no_header(rows: Sequence[Sequence[str]]) -> str:
    """Why the first row is not a header; "": it looks like one."""
    if not rows:
        return ""
    first, rest = rows[0], rows[1:]
    if any(cell.strip().casefold() in (*TEXT_NAMES, *LABEL_NAMES) for cell in first):
        return ""
    for place, cell in enumerate(first):
        cell = cell.strip()
        below = {row[place].strip() for row in rest if len(row) > place}
        if not cell:
            continue
        if isinstance(number_as_written(cell), float):
            return f"the first line has the number {cell}"
        if cell in below:
            return f"{cell!r} from the first line occurs again in its column"
        if len(cell) > MAX_NAME:
            return "the first line has a sentence"
    return ""
