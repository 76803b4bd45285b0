"""Output formats of `attar predict`: each writes chunks and joins them into one file.

In tables (`.csv`, `.tsv`, `.parquet`) columns of the input are text; in `.jsonl` they are
unchanged. Imports no torch.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from attar.data.reading.records import Record
from attar.export.deployed import EmbeddedText, Prediction
from attar.export.opened import Quoted, Tagged
from attar.tasks.kind import Kind

Answer = Prediction | EmbeddedText | Quoted | Tagged


def columns_of(kind: Kind) -> tuple[str, ...]:
    """Names of the answer columns for a kind of task."""
    place = ("start", "end") if kind.asks else ()
    return ("prediction", *place, "probability", "is_cut", "error")


@dataclass(frozen=True)
class Row:
    """One row of the input with its answer."""

    record: Record
    answer: Answer | None
    fault: str = ""

    @property
    def scores(self) -> Mapping[str, float]:
        """Class → score; empty if there is no answer."""
        return self.answer.scores if isinstance(self.answer, Prediction) else {}

    def answers(self, kind: Kind) -> tuple[Any, ...]:
        """The values of `columns_of`."""
        given = self.answer
        if isinstance(given, Quoted):
            found = given.answer
            return found.text, found.start, found.end, found.probability, given.is_cut, ""
        if isinstance(given, Tagged):
            return [asdict(one) for one in given.entities], None, given.is_cut, ""
        if isinstance(given, Prediction):
            label = next(iter(given.scores.values())) if kind.is_score else given.label
            return label, given.probability, given.is_cut, ""
        return (None,) * (len(columns_of(kind)) - 1) + (self.fault,)


class Writer(Protocol):
    """A format of the output."""

    def chunk(self, rows: Sequence[Row]) -> bytes:
        """Contents of a chunk file."""
        ...

    def join(self, chunks: Sequence[Path], stream: IO[bytes], num_rows: int) -> None:
        """Join all chunks into one file."""
        ...


@dataclass(frozen=True)
class Shape:
    """Properties that all rows share."""

    columns: tuple[str, ...]
    """Columns of the input to keep."""
    label_names: tuple[str, ...]
    kind: Kind
    width: int
    """Number of scores per row, or dimension of its embedding."""
    keeps_all: bool
    """Whether columns that the first rows lack are kept too, if the format supports it."""

    def cells(self, row: Row) -> list[Any]:
        return [row.record.get(name) for name in self.columns]


class _Lines:
    """.jsonl"""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def chunk(self, rows: Sequence[Row]) -> bytes:
        lines: list[str] = []
        for row in rows:
            kept = row.record if self._shape.keeps_all else self._shape.columns
            plain = {name: row.record[name] for name in kept if name in row.record}
            kind = self._shape.kind
            plain |= zip(columns_of(kind), row.answers(kind), strict=True)
            if not kind.answers_tokens:
                plain["scores"] = dict(row.scores) or None
            if isinstance(row.answer, Prediction) and row.answer.labels is not None:
                plain["labels"] = row.answer.labels
            plain = {name: _as_json(value) for name, value in plain.items()}
            lines.append(json.dumps(plain, ensure_ascii=False, default=str) + "\n")
        return "".join(lines).encode("utf-8", "backslashreplace")

    def join(self, chunks: Sequence[Path], stream: IO[bytes], num_rows: int) -> None:
        _copy(chunks, stream)


class _Table:
    """.csv and .tsv"""

    def __init__(self, shape: Shape, delimiter: str) -> None:
        self._shape, self._delimiter = shape, delimiter

    def _lines(self, lines: Sequence[Sequence[Any]]) -> bytes:
        text = io.StringIO()
        for line in lines:
            # other readers treat a lone "\r" as a line end, but Python 3.11 quotes it only if it
            # is part of the line terminator
            own = io.StringIO()
            csv.writer(own, delimiter=self._delimiter, lineterminator="\r\n").writerow(line)
            text.write(own.getvalue()[:-2] + "\n")
        return text.getvalue().encode("utf-8", "backslashreplace")

    def chunk(self, rows: Sequence[Row]) -> bytes:
        kind = self._shape.kind
        return self._lines(
            [
                [*map(_as_cell, self._shape.cells(row)), *map(_answer_cell, row.answers(kind))]
                for row in rows
            ]
        )

    def join(self, chunks: Sequence[Path], stream: IO[bytes], num_rows: int) -> None:
        stream.write(self._lines([[*self._shape.columns, *columns_of(self._shape.kind)]]))
        _copy(chunks, stream)


class _Parquet:
    """.parquet: columns of the input as text."""

    def __init__(self, shape: Shape) -> None:
        import pyarrow as pa

        self._shape = shape
        kind = shape.kind
        part = [("text", pa.string()), ("label", pa.string()), ("start", pa.int32())]
        part += [("end", pa.int32()), ("probability", pa.float32())]
        types = {
            **dict.fromkeys(("start", "end"), pa.int32()),
            **{"probability": pa.float32(), "is_cut": pa.bool_(), "error": pa.string()},
            "prediction": pa.float64() if kind.is_score else pa.string(),
        }
        if kind.answers_tokens and not kind.asks:
            types["prediction"] = pa.list_(pa.struct(part))
        fields = [(name, pa.string()) for name in shape.columns]
        fields += [(name, types[name]) for name in columns_of(kind)]
        scores = [] if kind.answers_tokens else [("scores", pa.list_(pa.float32()))]
        self._schema = pa.schema(
            [*fields, *scores],
            metadata={"label_names": json.dumps(shape.label_names, ensure_ascii=False)},
        )

    def chunk(self, rows: Sequence[Row]) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        shape = self._shape
        lines = [
            [
                *(None if cell is None else _as_cell(cell) for cell in shape.cells(row)),
                *row.answers(shape.kind),
                *([] if shape.kind.answers_tokens else [list(row.scores.values()) or None]),
            ]
            for row in rows
        ]
        columns = [list(column) for column in zip(*lines, strict=True)]
        arrays = [
            pa.array(column, type=field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        buffer = io.BytesIO()
        pq.write_table(pa.table(arrays, schema=self._schema), buffer, compression="zstd")
        return buffer.getvalue()

    def join(self, chunks: Sequence[Path], stream: IO[bytes], num_rows: int) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(stream, self._schema, compression="zstd") as writer:
            for chunk in chunks:
                writer.write_table(pq.read_table(chunk))


class _Array:
    """.npy: only the scores."""

    def __init__(self, shape: Shape) -> None:
        self._width = shape.width

    def chunk(self, rows: Sequence[Row]) -> bytes:
        scores = np.full((len(rows), self._width), np.nan, dtype="<f4")
        for place, row in enumerate(rows):
            if isinstance(row.answer, EmbeddedText):
                scores[place] = row.answer.vector
            elif row.answer is not None:
                scores[place] = list(row.scores.values())
        return scores.tobytes()

    def join(self, chunks: Sequence[Path], stream: IO[bytes], num_rows: int) -> None:
        shape = (num_rows, self._width)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        _copy(chunks, stream)


WRITERS: Mapping[str, Callable[[Shape], Writer]] = {
    ".csv": lambda shape: _Table(shape, ","),
    ".tsv": lambda shape: _Table(shape, "\t"),
    ".jsonl": _Lines,
    ".parquet": _Parquet,
    ".npy": _Array,
}
"""Suffix of the output → its writer."""


def _as_cell(value: Any) -> str:
    """Convert a value of the input to text; lists and objects become JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    is_json = isinstance(value, bool | list | dict)
    return json.dumps(value, default=str) if is_json else str(value)


def _answer_cell(value: Any) -> Any:
    """Convert a value of an answer; a list of spans becomes JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _as_json(value: Any) -> Any:
    """Convert a value of the input for JSON, which has no NaN or infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _copy(chunks: Sequence[Path], stream: IO[bytes]) -> None:
    for chunk in chunks:
        with chunk.open("rb") as part:
            shutil.copyfileobj(part, stream)
