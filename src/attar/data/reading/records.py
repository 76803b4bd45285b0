"""Rows of a .jsonl, .csv, .tsv, .txt or .parquet file as dictionaries, one at a time; what is no
row says why.

The problem: one bad line must not cost the file, and a file must not be held in memory twice. The
idea: every format is a stream of `dict | Unreadable`. Parquet is read by Arrow in small batches,
its strings as bytes, because one byte that is no UTF-8 would otherwise fail a whole batch. CSV is
read by Python's own reader and not by Arrow's for the same reason: Arrow refuses a block, and
guesses the type of a column from its first megabyte.

A quotation mark left open in a .csv makes one row of all lines up to the next one. So a quotation
must close before a comma or the end of its line (`strict`), and of a faulty row each line counts as
set aside, lest a thousand lost rows look like one. A .tsv has no quoting: its type (IANA's
text/tab-separated-values) has none.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attar.data.reading.byte_lines import Budget, Unreadable, read_lines
from attar.data.reading.locate import FORMATS, format_of
from attar.errors import DataError

Record = dict[str, Any]
NOT_UTF8 = Unreadable("not UTF-8")
OPEN_QUOTATION = Unreadable("in a quotation that does not close as it should")
PARQUET_ROWS_AT_ONCE = 256
"""Few, so that a batch of rows at the cap stays below what a small machine can hold."""


def read_records(file: Path) -> Iterator[Record | Unreadable]:
    """The rows of a file in order, whatever its format.

    Raises:
        DataError: the file is damaged or truncated, or its format is none of ours.
    """
    readers: dict[str, Callable[[Path], Iterator[Record | Unreadable]]] = {
        ".jsonl": _read_jsonl,
        ".csv": lambda file: _read_table(file, _Quoted),
        ".tsv": lambda file: _read_table(file, _Tabs),
        ".parquet": _read_parquet,
        ".txt": _read_txt,
    }
    reader = readers.get(format_of(file) or "")
    if reader is None:
        raise DataError(f"{file} has no format that can be read; known are {' '.join(FORMATS)}")
    return reader(file)


class _Quoted(csv.excel):
    strict = True


class _Tabs(csv.Dialect):
    delimiter = "\t"
    quoting = csv.QUOTE_NONE
    lineterminator = "\n"


def _read_jsonl(file: Path) -> Iterator[Record | Unreadable]:
    for line in read_lines(file):
        if isinstance(line, Unreadable):
            yield line
        elif line.strip():
            yield _parse_json(line)


def _parse_json(line: bytes) -> Record | Unreadable:
    try:
        content = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, RecursionError):
        return Unreadable("not JSON")
    return content if isinstance(content, dict) else Unreadable("not a JSON object")


def _read_txt(file: Path) -> Iterator[Record | Unreadable]:
    for line in read_lines(file):
        if isinstance(line, Unreadable):
            yield line
        elif line.strip():
            try:
                yield {"text": line.decode("utf-8").rstrip("\r")}
            except UnicodeDecodeError:
                yield NOT_UTF8


def _read_table(file: Path, dialect: type[csv.Dialect]) -> Iterator[Record | Unreadable]:
    passed_over: list[Unreadable] = []

    def lines() -> Iterator[str]:
        for line in read_lines(file):
            if isinstance(line, Unreadable):
                passed_over.append(line)
            else:  # bytes that are no UTF-8 become surrogates, found when the texts are looked at
                yield line.decode("utf-8", errors="surrogateescape") + "\n"

    reader = csv.reader(lines(), dialect)
    names: list[str] | None = None
    while True:
        before = reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error:
            fields = None
        yield from passed_over
        passed_over.clear()
        num_lines = reader.line_num - before
        if names is None:
            names = _column_names(file, fields, num_lines)
        elif num_lines > 1 and (fields is None or len(fields) != len(names)):
            yield from [OPEN_QUOTATION] * num_lines
        elif fields is None:
            yield Unreadable("not a row of CSV")
        elif fields and len(fields) != len(names):
            yield Unreadable("wrong number of columns")
        elif fields:
            yield dict(zip(names, fields, strict=True))
    yield from passed_over


def _column_names(file: Path, fields: list[str] | None, num_lines: int) -> list[str]:
    if fields is None:
        raise DataError(
            f"{file}: its first line must name the columns, and lines 1 to {num_lines} are no row "
            "of CSV; look for a quotation mark that is not closed"
        )
    twice = sorted({name for name in fields if fields.count(name) > 1})
    if twice:
        raise DataError(
            f"{file}: its first line must name the columns, and {', '.join(map(repr, twice))} "
            "stands there twice; give each column its own name"
        )
    return fields


def _read_parquet(file: Path) -> Iterator[Record | Unreadable]:
    budget = Budget(file) if file.is_file() else None
    if budget is None:
        raise DataError(f"{file} does not exist; correct the path, or fetch the file again")
    num_rows = 0
    try:
        with pq.ParquetFile(file) as parquet:
            Budget(file).spend(_declared_bytes(parquet))
            for batch in parquet.iter_batches(batch_size=PARQUET_ROWS_AT_ONCE):
                budget.spend(batch.nbytes)
                yield from _rows_of_batch(batch)
                num_rows += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is truncated or damaged: {error}, after row {num_rows} (file of "
            f"{file.stat().st_size} bytes); fetch or write the file again; no row of it was used"
        ) from error


def _declared_bytes(parquet: pq.ParquetFile) -> int:
    """The size that the file itself gives for its unpacked pages: looked at before any is
    unpacked."""
    metadata = parquet.metadata
    return sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))


def _rows_of_batch(batch: Any) -> Iterator[Record | Unreadable]:
    columns = [_as_bytes(column).to_pylist() for column in batch.columns]
    for values in zip(*columns, strict=True):
        try:
            yield {
                name: value.decode("utf-8") if isinstance(value, bytes) else value
                for name, value in zip(batch.schema.names, values, strict=True)
            }
        except UnicodeDecodeError:
            yield NOT_UTF8


def _as_bytes(column: Any) -> Any:
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        return column.cast(pa.binary())
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.large_binary())
    return column
