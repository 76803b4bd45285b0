"""Rows of a Parquet file; the size of everything is checked before it is unpacked.

The problem: a dictionary stores a long text once for many rows, a run stores a value once for
millions of rows, and Arrow allocates the size given in a page header: a file of a kilobyte may
contain gigabytes of rows. The idea: sizes are determined before anything is unpacked, and are first
charged to the file's budget (`byte_lines.Budget`).

    pages            from the page headers                                      `parquet_pages`
    rows             from the footer, ROW_BYTES each; Arrow yields at most this many
    a batch          few enough rows that values of the maximum size fit into BATCH_BYTES
    dictionaries     lengths of the values used, before they are decoded

Strings are read as bytes, because otherwise one byte that is not UTF-8 would make a whole batch
fail. Lists and structs can be neither texts nor labels and are not read. Dates are read as ISO
text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as pq

from attar.data.reading.byte_lines import MIB, ROW_BYTES, Budget, Unreadable, not_utf8
from attar.data.reading.parquet_pages import PageSizes, page_sizes
from attar.errors import DataError

arrow: Any = compute  # its functions are created at import time, so type checkers do not see them
ROWS_AT_ONCE = 256
BATCH_BYTES = 16 * MIB
"""Arrow holds a batch, and Python its values both as bytes and as text."""


def read_parquet(file: Path) -> Iterator[dict[str, Any] | Unreadable]:
    """The rows in order.

    Raises:
        DataError: the file is missing, damaged, truncated, or a compression bomb.
    """
    budget = Budget(file)
    num_rows = 0
    try:
        with pq.ParquetFile(file) as parquet:
            sizes = page_sizes(file)
            for due in (sizes.unpacked, parquet.metadata.num_rows * ROW_BYTES):
                Budget(file).spend(due)
            names = _column_names(file, parquet.schema_arrow)
            flat = [name for name, kind in names.items() if not pa.types.is_nested(kind)]
            nested: dict[str, Any] = {name: [] for name in names if name not in flat}
            for batch in parquet.iter_batches(batch_size=_rows_at_once(sizes), columns=flat):
                for row in _rows_of_batch(batch, budget):
                    yield row if isinstance(row, Unreadable) else {**row, **nested}
                num_rows += len(batch)
    except (pa.ArrowException, OSError, ValueError) as error:  # also column names not UTF-8
        raise DataError(
            f"{file} is truncated or damaged: {error}, after row {num_rows} (file of "
            f"{file.stat().st_size} bytes); fetch or write the file again; no row of it was used"
        ) from error


def nested_columns(file: Path) -> list[str]:
    """The columns that `read_parquet` does not read and returns as empty lists."""
    return [
        name
        for name, kind in _column_names(file, pq.read_schema(file)).items()
        if pa.types.is_nested(kind)
    ]


def _rows_at_once(sizes: PageSizes) -> int:
    return max(1, min(ROWS_AT_ONCE, BATCH_BYTES // max(sizes.largest_value, 1)))


def _column_names(file: Path, schema: Any) -> dict[str, Any]:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise DataError(
            f"{file} has two columns named {', '.join(map(repr, twice))}; give each column its own "
            "name"
        )
    return {field.name: field.type for field in schema}


def _rows_of_batch(batch: Any, budget: Budget) -> Iterator[dict[str, Any] | Unreadable]:
    columns = [_values(column, budget) for column in batch.columns]
    for values in zip(*columns, strict=True):
        fault = next((value for value in values if isinstance(value, Unreadable)), None)
        yield dict(zip(batch.schema.names, values, strict=True)) if fault is None else fault


def _values(column: Any, budget: Budget) -> list[Any]:
    """The cells of a column as Python values. A dictionary's size is charged before it is
    decoded."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        budget.spend(_decoded_bytes(column))
        column = column.dictionary_decode()
    else:
        budget.spend(column.nbytes)
    kind = column.type
    if pa.types.is_temporal(kind):
        return _dates(column)
    values = _as_bytes(column).to_pylist()
    return [_text_of(value) if isinstance(value, bytes) else value for value in values]


def _text_of(value: bytes) -> str | Unreadable:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return not_utf8(value)


def _dates(column: Any) -> list[Any]:
    """Dates as ISO text. Python's own dates end in the year 9999, those in a file may not."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit))  # UTC: the zone may be unknown here
    try:
        return column.cast(pa.string()).to_pylist()
    except pa.ArrowException:  # durations, intervals
        return [[]] * len(column)


def _as_bytes(column: Any) -> Any:
    if pa.types.is_string(column.type):
        return column.cast(pa.binary())
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.large_binary())
    return column


def _decoded_bytes(column: Any) -> int:
    """Size in bytes of a dictionary column after decoding."""
    try:
        lengths = arrow.binary_length(_as_bytes(column.dictionary))
    except pa.ArrowNotImplementedError:  # numbers and dates, of fixed width
        return 16 * len(column)
    return int(arrow.sum(lengths.take(column.indices)).as_py() or 0)
