"""Guess what a file of texts contains: delimiter, header, columns, labels, task; each with its
reason.

The problem: a recipe needs six settings of a file, and its owner knows the file but not the
settings. The idea: look at the first rows, guess the usual, report every guess with the option that
changes it, and list the alternatives if there are several. A running recipe uses none of this: the
guesses are written down as settings.

    delimiter   the character that splits the first lines into the same number of columns
    header      the first line, unless it has a number, an empty or repeated cell, a sentence, or a
                value that occurs in its column again
    text        a column with a usual name, else the one with the most words
    label       a column with a usual name, else one with few distinct values; whole numbers that
                are all different, or have a key's name, are keys
    task        by the labels: numbers with fractions, or more than MAX_GRADES distinct ones, are
                regression; everything else is classification

Not supported: labels spread over several columns, nested JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from attar.data.config import FilesData
from attar.data.files import records_of
from attar.data.gold import PLAIN_PAIRS
from attar.data.look.form import LABEL_NAMES, TEXT_NAMES, Guess, TaskName, Wishes, form_of
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.labels import MAX_CLASSES, number_as_written
from attar.data.reading.locate import (
    FORMATS,
    TEST_STEMS,
    VALIDATION_STEMS,
    format_of,
    own_files,
    stem_of,
)
from attar.errors import UsageError, did_you_mean
from attar.tasks.table import CAUSAL_LM, CLASSIFICATION, REGRESSION

ROWS = 1000
"""Number of rows that are looked at."""
ID_NAMES = ("id", "uuid", "index", "guid")
KEY_NAME = re.compile(r"(?:^|[\W_])(?:id|no|nr|num|number|key|ticket)$")
OTHER_VALIDATION = ("val", "eval")
UNLABELLED_STEMS = ("unlabelled", "unlabeled", "raw", "pool")
MAX_GRADES = 20
"""A column with more distinct numbers holds amounts rather than classes."""
MIN_WORDS = 2.5
"""Minimum mean number of words per row of a text column."""
LABEL_WORDS = 4
"""Maximum mean number of words of a class name."""
LONG_WORDS = 60
"""Unlabelled texts with more words are taken for running text."""


@dataclass(frozen=True)
class Guessed:
    """A file of texts as a data table, with the guesses made for it."""

    config: FilesData
    task: TaskName
    guesses: tuple[Guess, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class _Column:
    """Statistics of a column in the first rows."""

    name: str
    filled: int
    different: int
    words: float
    """Mean number of words per value."""
    letters: float
    """Share of the values that contain a letter."""
    numbers: float
    """Share of the values that are numbers."""
    fractions: bool

    @classmethod
    def of(cls, name: str, rows: Sequence[Mapping[str, Any]]) -> _Column:
        values = [row[name] for row in rows if row.get(name) not in (None, "")]
        texts = [str(value) for value in values]
        numbers = [n for v in values if isinstance(n := number_as_written(v), float)]
        count = max(1, len(values))
        return cls(
            name,
            len(values),
            len(set(texts)),
            sum(len(text.split()) for text in texts) / count,
            sum(any(map(str.isalpha, text)) for text in texts) / count,
            len(numbers) / count,
            any(number != int(number) for number in numbers),
        )

    @property
    def plain(self) -> str:
        return self.name.strip().casefold()

    @property
    def is_text(self) -> bool:
        usual = self.plain in TEXT_NAMES
        return self.letters > 0.5 and (usual or (self.words >= MIN_WORDS and self.different > 1))

    @property
    def is_number(self) -> bool:
        return self.numbers == 1 and self.filled > 0

    @property
    def is_amount(self) -> bool:
        """Whether the column holds numbers that are not classes."""
        return self.is_number and (self.fractions or self.different > MAX_GRADES)

    @property
    def is_key(self) -> bool:
        """Whether the column holds whole numbers that identify rows, such as ticket numbers: all
        are different, or the column is named like a key."""
        whole = self.is_amount and not self.fractions
        return whole and (self.different == self.filled or bool(KEY_NAME.search(self.plain)))

    @property
    def may_be_label(self) -> bool:
        if self.plain in ID_NAMES or not self.filled or self.words > LABEL_WORDS:
            return False
        if self.plain in LABEL_NAMES:
            return True
        if self.is_key:
            return False
        return 1 < self.different <= min(MAX_CLASSES, max(2, self.filled // 3))


def guess(path: Path, wishes: Wishes) -> Guessed:
    """Guess what a file, or a folder with one file per split, contains.

    Args:
        path: as the user wrote it.

    Raises:
        UsageError: there is no readable file, or a setting does not fit it.
        DataError: a file is damaged.
    """
    table: dict[str, Any] = {"path": path.name}
    where, guesses = _splits(path, table)
    train = own_files(FilesData(**table), where)["train"][0]
    if format_of(train) in (".csv", ".tsv", ".txt") and "document" not in table:
        guesses += form_of(train, wishes, table)
    config = FilesData(**table)
    rows = _first_rows(config, where)
    if not rows:
        raise UsageError(
            f"{train} has no readable row; it needs rows below the column names, UTF-8 text, and "
            "the same delimiter in every row"
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [_Column.of(name, rows) for name in names]
    task, found = _columns(columns, wishes, table)
    return Guessed(FilesData(**table), task, (*guesses, *found), tuple(names))


def _first_rows(config: FilesData, where: Path) -> list[Mapping[str, Any]]:
    records = records_of(config, own_files(config, where)["train"])
    return [row for row in islice(records, ROWS) if not isinstance(row, Unreadable)]


def _splits(path: Path, table: dict[str, Any]) -> tuple[Path, list[Guess]]:
    """The base folder of `path`, and guesses of which file is which split."""
    if path.is_file():
        if format_of(path) is None:
            raise UsageError(
                f"{path} has an unknown format; supported: {' '.join(FORMATS)}; save a "
                "spreadsheet as CSV UTF-8"
            )
        why = "one file: some of its rows are held out for validation"
        return path.parent, [Guess("split", "train", why)]
    if not path.is_dir():
        near = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UsageError(f"{path} does not exist{did_you_mean(path.name, near)}")
    files = [file for file in sorted(path.iterdir()) if file.is_file() and format_of(file)]
    stems = [stem_of(file) for file in files]
    usual = (*VALIDATION_STEMS, *OTHER_VALIDATION, *TEST_STEMS, *UNLABELLED_STEMS)
    texts = [file for file in path.rglob("*.txt") if stem_of(file) not in ("train", *usual)]
    if texts and not [file for file in files if format_of(file) != ".txt"]:
        table |= {"document": "file", "objective": CAUSAL_LM.name}
        why = "a folder of .txt files: each is a document, and a tenth of them is held out"
        return path.parent, [Guess("split", "train", why)]
    others = [stem for stem in stems if stem not in usual]
    train = "train" if "train" in stems else others[0] if len(others) == 1 else None
    if train is None:
        raise UsageError(
            f"{path} has no file named train; it has {', '.join(stems) or 'no data file'}; give "
            "that file itself, or rename it"
        )
    if train != "train":
        table["train"] = train
    validation = next((s for s in (*VALIDATION_STEMS, *OTHER_VALIDATION) if s in stems), None)
    if validation in OTHER_VALIDATION:
        table["validation"] = validation
    found = f"train = {train}, validation = {validation or 'rows of train, held out'}"
    if unlabelled := next((s for s in UNLABELLED_STEMS if s in stems), None):
        table["unlabelled"] = unlabelled
        found += f", unlabelled = {unlabelled}"
    return path.parent, [Guess("split", found, "by file name")]


def _columns(
    columns: Sequence[_Column], wishes: Wishes, table: dict[str, Any]
) -> tuple[TaskName, list[Guess]]:
    """Guess task, text and label, and write them to `table`."""
    by_name = {column.name: column for column in columns}
    for flag, names in (("--text", wishes.text), ("--label", (wishes.label,))):
        for name in names:
            if name is not None and name not in by_name:
                raise UsageError(
                    f"{flag} {name}: there is no such column{did_you_mean(name, list(by_name))}; "
                    f"there are {', '.join(map(repr, by_name))}"
                )
    if table.get("document") == "file":
        return "running_text", [Guess("task", "running_text", "a document has no label")]
    text, guess_of_text = _text(columns, wishes)
    label, guess_of_label = _label(columns, text, wishes)
    table["text"] = text[0] if len(text) == 1 else text
    guesses = [guess_of_text]
    if label is not None:
        table["label"] = label
    if guess_of_label.why:
        guesses.append(guess_of_label)
    task = wishes.task or _task([by_name[name] for name in text], by_name.get(label or ""))
    if task == "running_text" or task == "unlabelled":
        if len(text) == 2:
            raise UsageError(
                f"{text[0]!r} and {text[1]!r} are a pair, which needs a label; name it with "
                "--label, or one column of text with --text"
            )
        table["objective"] = CAUSAL_LM.name
    elif label is None:
        raise UsageError(
            f"--task {task} needs a label, and no column looks like one; name it with --label; "
            f"the columns are {', '.join(map(repr, by_name))}"
        )
    elif task == "numbers" or (task == "pairs" and by_name[label].is_amount):
        table["objective"] = REGRESSION.name
    else:
        table["objective"] = CLASSIFICATION.name
    ids = by_name.get("id")
    if ids is not None and ids.different < ids.filled:
        table["id"] = ""
        why = "values of the column 'id' repeat, so it does not identify rows"
        guesses.append(Guess("id", "not looked at", why))
    why = "set" if wishes.task else "by the labels" if label else "no column looks like a label"
    return task, [*guesses, Guess("task", task, why)]


def _text(columns: Sequence[_Column], wishes: Wishes) -> tuple[tuple[str, ...], Guess]:
    if wishes.text:
        return wishes.text, Guess("text", " and ".join(wishes.text), "set")
    names = {column.plain: column.name for column in columns}
    pair = next((p for p in PLAIN_PAIRS if all(name in names for name in p)), None)
    if pair is not None and wishes.task in (None, "pairs"):
        found = tuple(names[name] for name in pair)
        return found, Guess("text", " and ".join(found), "common column names of a pair")
    usual = [column for name in TEXT_NAMES for column in columns if column.plain == name]
    others = sorted((c for c in columns if c.is_text), key=lambda c: -c.words)
    ranked = list(dict.fromkeys(c.name for c in [*(u for u in usual if u.is_text), *others]))
    if not ranked:
        ranked = [c.name for c in columns if c.letters > 0.5 and c.plain not in LABEL_NAMES][:1]
    if not ranked or (wishes.task == "pairs" and len(ranked) < 2):
        raise UsageError(
            f"no {'two columns look' if ranked else 'column looks'} like text; name "
            f"{'them with --text twice' if ranked else 'it with --text'}; the columns are "
            f"{', '.join(repr(column.name) for column in columns)}"
        )
    if wishes.task == "pairs":
        return tuple(ranked[:2]), Guess(
            "text", " and ".join(ranked[:2]), "the two with the most words"
        )
    why = "the only column of texts" if len(ranked) == 1 else "of several columns of texts"
    if len(ranked) > 1:
        why += f" ({', '.join(map(repr, ranked[1:]))} too)"
    return (ranked[0],), Guess("text", ranked[0], why)


def _label(
    columns: Sequence[_Column], text: Iterable[str], wishes: Wishes
) -> tuple[str | None, Guess]:
    if wishes.label is not None:
        return wishes.label, Guess("label", wishes.label, "set")
    if wishes.task in ("running_text", "unlabelled"):
        return None, Guess("label", "none", "")
    wanted = [c for c in columns if c.name not in text]
    usual = [c for name in LABEL_NAMES for c in wanted if c.plain == name and c.filled]
    found = [c for c in wanted if c.may_be_label]
    if wishes.task == "numbers":
        found, usual = [c for c in wanted if c.is_number and c.plain not in ID_NAMES], []
        found = [c for c in found if not c.is_key] or found
    ranked = list(dict.fromkeys(c.name for c in [*usual, *reversed(found)]))
    keys = [c.name for c in wanted if c.is_key]
    if not ranked:
        why = f"{', '.join(map(repr, keys))}: whole numbers like those of tickets" if keys else ""
        return None, Guess("label", "none", why)
    values = next(c.different for c in wanted if c.name == ranked[0])
    why = f"{values:,} different values"
    if len(ranked) > 1:
        why += f"; {', '.join(map(repr, ranked[1:]))} could be it too"
    if ranked[0] in keys:
        why += ", all whole numbers like those of tickets: is there a better column?"
    return ranked[0], Guess("label", ranked[0], why)


def _task(text: Sequence[_Column], label: _Column | None) -> TaskName:
    if label is None:
        return "running_text" if text[0].words > LONG_WORDS else "unlabelled"
    if len(text) == 2:
        return "pairs"
    return "numbers" if label.is_amount else "classes"
