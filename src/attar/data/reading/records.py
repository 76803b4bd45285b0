"""Rows of a .jsonl, .json, .csv, .tsv, .txt or .parquet file as dictionaries, one at a time; an
invalid row comes with the reason.

The problem: one bad line must not make the whole file unusable, and a file must not be held in
memory twice. The idea: every format is read as a stream of `dict | Unreadable` (Parquet's is in
`parquet`). CSV is read by Python's reader and not by Arrow's, which rejects a whole block for one
bad byte and guesses the type of a column from its first megabyte.

A number in JSON keeps its spelling (`WrittenFloat`), because it may be meant as a text or a name. A
key that appears twice in an object makes its row unreadable, because parsers disagree on which one
counts. If the last line of a JSON Lines file is incomplete and has no line end, the file is
truncated.

An unclosed quotation mark in a .csv joins all lines up to the next one into one row. So a quotation
must close before a delimiter or the end of its line (`strict`), and every line of an invalid row
counts as set aside; otherwise a thousand lost rows would look like one. There are two kinds of
.tsv: quoted, as written by spreadsheets, pandas and `attar predict`, and plain, as in GLUE's files
and IANA's text/tab-separated-values. So quotation marks are removed where they form a closed
quotation, and kept as text elsewhere.
"""

from __future__ import annotations

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attar.data.reading.byte_lines import (
    MAX_ROW_BYTES,
    Unended,
    Unreadable,
    fault_of_encoding,
    not_utf8,
    read_lines,
    too_long,
)
from attar.data.reading.locate import FORMATS, format_of
from attar.data.reading.squad import read_json_rows
from attar.errors import DataError

Record = dict[str, Any]
CutRow = tuple[list[str] | None, int]
"""Cells of a row (None: not a valid row), and the number of its lines."""
CutRows = Callable[[Iterator[str], str], Iterator[CutRow]]
"""(lines, delimiter) → rows."""
MAX_JOINED = 100
"""Maximum number of further lines that a cell in a .tsv may span."""
NOT_JSON = Unreadable("not JSON")
OPEN_QUOTATION = Unreadable("in a quotation that is not closed")


def read_records(
    file: Path,
    limit: int = MAX_ROW_BYTES,
    delimiter: str | None = None,
    *,
    header: bool = True,
    blank: bool = False,
) -> Iterator[Record | Unreadable]:
    """The rows of a file in order, in any supported format.

    Args:
        limit: maximum number of bytes of a line; longer lines are unusable. Does not apply to
            Parquet.
        delimiter: column separator of a table; if set, a .txt is read as a table too. None: a comma
            in a .csv, a tab in a .tsv.
        header: whether the first line of a table names its columns; if not, they are column1,
            column2, …
        blank: whether an empty line of a .txt, .csv or .tsv is a row of empty texts, instead of
            being skipped.

    Raises:
        DataError: the file is damaged or truncated, or its format is not supported.
    """
    readers: dict[str, Callable[[Path], Iterator[Record | Unreadable]]] = {
        ".jsonl": lambda file: _read_jsonl(file, limit),
        ".json": read_json_rows,
        ".csv": lambda file: _read_table(file, limit, _csv_rows, delimiter or ",", header, blank),
        ".tsv": lambda file: _read_table(file, limit, _tsv_rows, delimiter or "\t", header, blank),
        ".parquet": _read_parquet,
        ".txt": lambda file: _read_txt(file, limit, blank),
    }
    if delimiter is not None:
        readers[".txt"] = readers[".csv"]
    reader = readers.get(format_of(file) or "")
    if reader is None:
        raise DataError(f"{file} has an unknown format; supported: {' '.join(FORMATS)}")
    return reader(file)


def read_document(file: Path, limit: int) -> Iterator[Record | Unreadable]:
    """A .txt file as one row: its text, its name, and its folder as the source; or why it is
    unusable, with its name.

    Raises:
        DataError: the file is damaged or truncated.
    """
    # a file name may not be valid UTF-8
    source, bare = (os.fsencode(n).decode("utf-8", "replace") for n in file.parts[-2:])
    name = f"{source}/{bare}"
    pieces: list[bytes] = []
    size = 0
    for line in read_lines(file, limit):
        size = limit + 1 if isinstance(line, Unreadable) else size + len(line)
        if size > limit:
            yield Unreadable(f"{too_long(limit).reason}: {name}")
            return
        pieces += [line, b"" if isinstance(line, Unended) else b"\n"]
    raw = b"".join(pieces)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        yield Unreadable(f"{not_utf8(raw).reason}: {name}")
        return
    fault = "NUL byte" if "\0" in text else "" if text.strip() else "empty"
    if fault:
        yield Unreadable(f"{fault}: {name}")
    else:
        yield {"text": text.replace("\r\n", "\n"), "file": name, "source": source}


class _Quoted(csv.excel):
    strict = True


class _Unquoted(csv.Dialect):
    delimiter = "\t"
    quoting = csv.QUOTE_NONE
    lineterminator = "\n"


class WrittenFloat(float):
    """A JSON number that keeps its original spelling, such as 1.50."""

    written: str

    def __new__(cls, written: str) -> WrittenFloat:
        number = super().__new__(cls, written)
        number.written = written
        return number

    def __str__(self) -> str:
        return self.written


class _TwiceError(Exception):
    """Raised if a key appears twice in a JSON object."""


def _read_jsonl(file: Path, limit: int) -> Iterator[Record | Unreadable]:
    for number, line in enumerate(read_lines(file, limit), start=1):
        if isinstance(line, Unreadable):
            yield line
        elif line.strip():
            record = _parse_json(line)
            if record is NOT_JSON and isinstance(line, Unended):
                raise DataError(
                    f"{file} is truncated or damaged: line {number}, the last one, has no end "
                    f"and is not JSON, after row {number - 1}; fetch or write the file again, "
                    "or remove the line; no row of the file was used"
                )
            yield record


def _parse_json(line: bytes) -> Record | Unreadable:
    try:
        content = json.loads(
            line.decode("utf-8"), parse_float=WrittenFloat, object_pairs_hook=_object
        )
    except UnicodeDecodeError:
        return not_utf8(line)
    except _TwiceError as error:
        return Unreadable(f"key {str(error)[:40]!r} appears twice")
    except json.JSONDecodeError:
        return NOT_JSON
    except (ValueError, RecursionError):
        return Unreadable("JSON with a number that is too long, or nested too deep")
    return content if isinstance(content, dict) else Unreadable("not a JSON object")


def _object(pairs: list[tuple[str, Any]]) -> Record:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


def _read_parquet(file: Path) -> Iterator[Record | Unreadable]:
    from attar.data.reading.parquet import read_parquet  # imports Arrow

    return read_parquet(file)


def _read_txt(file: Path, limit: int, blank: bool) -> Iterator[Record | Unreadable]:
    for line in read_lines(file, limit):
        if isinstance(line, Unreadable):
            yield line
        elif blank or line.strip():
            try:
                yield {"text": line.decode("utf-8").rstrip("\r")}
            except UnicodeDecodeError:
                yield not_utf8(line)


def _csv_rows(lines: Iterator[str], delimiter: str) -> Iterator[CutRow]:
    reader = csv.reader(lines, _Quoted, delimiter=delimiter)
    while True:
        before = reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            fields = None
        yield fields, reader.line_num - before


def _tsv_rows(lines: Iterator[str], delimiter: str) -> Iterator[CutRow]:
    """Each line is a row, and closed quotations are unquoted. Lines are joined to one row only if
    one of them has too few columns and all of them together have the right number."""
    ahead: deque[str] = deque()
    width = 0
    while line := ahead.popleft() if ahead else next(lines, ""):
        fields, joined = _cells([line], _Quoted, delimiter), [line]
        plain = _cells([line], _Unquoted, delimiter)
        if fields is None:
            fields = plain
            is_whole = len(plain or ()) >= width
            while plain is not None and width and len(joined) <= MAX_JOINED:
                if not (more := ahead.popleft() if ahead else next(lines, "")):
                    break
                joined.append(more)
                if is_whole and len(_cells([more], _Unquoted, delimiter) or ()) >= width:
                    break  # the quotation mark is text, and the next row is another
                if len(quoted := _cells(joined, _Quoted, delimiter) or ()) == width:
                    fields = [*quoted]
                    break
            if fields is plain:
                ahead.extendleft(reversed(joined[1:]))
                joined = joined[:1]
        elif fields and len(plain or ()) == width:
            # quotation marks of two cells are no quotation of both
            fields = fields if len(fields) == width else plain
        width = width or len(fields or ())
        yield fields, len(joined)


def _cells(lines: Sequence[str], dialect: type[csv.Dialect], delimiter: str) -> list[str] | None:
    """Parse lines as one row; None if they are not exactly one valid row."""
    try:
        row, *others = csv.reader(lines, dialect, delimiter=delimiter)
    except csv.Error:
        return None
    return None if others else row


def _read_table(
    file: Path, limit: int, rows: CutRows, delimiter: str, header: bool, blank: bool
) -> Iterator[Record | Unreadable]:
    passed_over: list[Unreadable] = []

    def lines() -> Iterator[str]:
        for line in read_lines(file, limit):
            if isinstance(line, Unreadable):
                passed_over.append(line)
            else:  # invalid UTF-8 becomes surrogates, reported when the texts are checked
                yield line.decode("utf-8", errors="surrogateescape") + "\n"

    csv.field_size_limit(max(limit, csv.field_size_limit()))
    names: list[str] | None = None
    for fields, num_lines in rows(lines(), delimiter):
        yield from passed_over
        passed_over.clear()
        if names is None and header:
            names = _column_names(file, fields, num_lines)
            continue
        if names is None and fields:
            names = [f"column{i}" for i in range(1, len(fields) + 1)]
        if names is None:
            yield Unreadable("not a row of CSV")
        elif num_lines > 1 and (fields is None or len(fields) != len(names)):
            yield from [OPEN_QUOTATION] * num_lines
        elif fields is None:
            yield Unreadable("not a row of CSV")
        elif fields and len(fields) != len(names):
            yield Unreadable("wrong number of columns")
        elif fields:
            yield dict(zip(names, fields, strict=True))
        elif blank:
            yield dict.fromkeys(names, "")
    yield from passed_over


def _column_names(file: Path, fields: list[str] | None, num_lines: int) -> list[str]:
    if fields is None:
        raise DataError(
            f"{file}: its first line must name the columns, but line 1 (up to line {num_lines}) is "
            "not valid CSV; look for an unclosed quotation mark, or mixed line ends (\\r among "
            "\\n)"
        )
    fault = fault_of_encoding("".join(fields))
    if fault is not None:
        raise DataError(f"{file}: the column names are {fault.reason}; save it as UTF-8")
    twice = sorted({name for name in fields if fields.count(name) > 1})
    if twice:
        raise DataError(
            f"{file}: its first line must name the columns, and {', '.join(map(repr, twice))} "
            "occurs twice; give each column its own name"
        )
    return fields
