"""A data table as a stream of documents, for corpora larger than memory.

The documents are the rows of the table's train split, in order, each read once and not kept in
memory. An unusable row is passed on with its reason, so that the reader can record it. If a table
of files has no validation split, the rows that `load_data` would hold out are skipped here too, so
that validation texts never enter a corpus. Finding them takes one extra pass over the texts, and 8
bytes of memory per row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.data.config import DataConfig, FilesData, HubData, StdlibTextData
from attar.data.files import (
    answer_column,
    column_names,
    find_columns,
    load_files,
    records_of,
    text_hash,
)
from attar.data.hub import hub_records, is_held_out
from attar.data.load import load_data
from attar.data.reading.byte_lines import MAX_ROW_BYTES, Unreadable
from attar.data.reading.locate import own_files
from attar.data.reading.records import Record
from attar.data.reading.rows import text_of
from attar.data.stdlib_docs import split_of
from attar.data.stdlib_text import stdlib_documents
from attar.data.tables import SetAside
from attar.errors import DataError, did_you_mean
from attar.tasks.table import CAUSAL_LM

BETWEEN_TEXTS = "\n"
"""Separator of the two texts of a row."""
MAX_SOURCE_NAME = 200


@dataclass(frozen=True)
class Document:
    """One row of running text."""

    row: int
    """Row number in the table, from 0, including rows that are set aside."""
    source: str
    """Source whose documents it is packed with; "" if the table does not distinguish sources."""
    texts: tuple[str, ...]
    """The texts of its columns."""

    @property
    def text(self) -> str:
        return BETWEEN_TEXTS.join(self.texts)


Documents = Iterator[Document | SetAside]


def documents(
    config: DataConfig, recipe_folder: Path, name: str, source_column: str | None = None
) -> Documents:
    """The documents of a table's train split, and its unusable rows.

    Args:
        source_column: column of a file with each row's source.

    Raises:
        DataError: the data is missing or damaged, or has no such column.
    """
    if config.train_rows is not None:
        raise DataError(
            f"data {name!r} has train_rows = {config.train_rows}, which needs rows in memory, but "
            "a corpus is read as a stream; remove train_rows, or limit the corpus with "
            f"max_documents = {config.train_rows}"
        )
    config = without_answers(config, recipe_folder)
    if isinstance(config, FilesData):
        return _of_files(config, recipe_folder, name, source_column)
    if isinstance(config, HubData):
        return _of_hub(config, name, source_column)
    if source_column is not None:
        raise DataError(
            f"data {name!r} comes from source = {config.source!r}, which has no columns; remove "
            f"source_column = {source_column!r}"
        )
    if isinstance(config, StdlibTextData):
        trained = (found for found in stdlib_documents() if split_of(found[1]) == "train")
        return (Document(row, source, (text,)) for row, (source, text) in enumerate(trained))
    train = load_data(config, recipe_folder, name=name).split("train")
    return (Document(row, "", texts) for row, texts in enumerate(train.texts))


def without_answers(config: DataConfig, recipe_folder: Path) -> DataConfig:
    """The table as running text, if its rows have no labels or targets; otherwise unchanged."""
    if not isinstance(config, FilesData):
        return config
    files = own_files(config, recipe_folder)
    read = [files[split] for split in ("train", "validation") if split in files]
    columns = [column_names(config, paths) for paths in read]
    if all(answer_column(config, names) in names for names in columns):
        return config
    return config.model_copy(update={"objective": CAUSAL_LM.name, "label_names": None})


def _of_files(
    config: FilesData, recipe_folder: Path, name: str, source_column: str | None
) -> Documents:
    files = own_files(config, recipe_folder)
    if "train" not in files:
        raise DataError(
            f"data {name!r} has no train file ({', '.join(files)} only); name its stem with train ="
        )
    columns = find_columns(config, {"train": files["train"]}, name)["train"].text
    require_source_column(config, recipe_folder, name, source_column)

    def read() -> Documents:
        limit = config.max_row_bytes
        return _documents(records_of(config, files["train"]), columns, source_column, limit)

    if "validation" in files:
        return read()
    return _without_held_out(read, config, recipe_folder, name)


def require_source_column(
    config: FilesData, recipe_folder: Path, name: str, column: str | None
) -> None:
    """Raise DataError if none of the first rows has the source column."""
    files = own_files(config, recipe_folder).get("train", ())
    known = column_names(config, files) if column is not None else []
    if column is not None and known and column not in known:
        raise DataError(
            f"data {name!r} ({files[0]}) has no column {column!r}{did_you_mean(column, known)} for "
            f"source_column; its columns are {', '.join(map(repr, known))}"
        )


def _of_hub(config: HubData, name: str, source_column: str | None) -> Documents:
    columns = (config.text,) if source_column is None else (config.text, source_column)
    records = hub_records(config, config.split, name, *columns)
    for found in _documents(records, (config.text,), source_column):
        if isinstance(found, SetAside) or not is_held_out(config, found.text):
            yield found


def _documents(
    records: Iterable[Record | Unreadable],
    columns: Sequence[str],
    source_column: str | None,
    limit: int = MAX_ROW_BYTES,
) -> Documents:
    for row, record in enumerate(records):
        is_row = not isinstance(record, Unreadable)
        found = _document(row, record, columns, source_column, limit) if is_row else record
        yield SetAside("train", row, found.reason) if isinstance(found, Unreadable) else found


def _document(
    row: int, record: Record, columns: Sequence[str], source_column: str | None, limit: int
) -> Document | Unreadable:
    texts = [text_of(column, record.get(column), limit) for column in columns]
    if fault := next((text for text in texts if isinstance(text, Unreadable)), None):
        return fault
    if source_column is not None and source_column not in record:
        return Unreadable(f"no {source_column}")
    source = "" if source_column is None else _source(source_column, record[source_column])
    if isinstance(source, Unreadable):
        return source
    return Document(row, source, tuple(text for text in texts if isinstance(text, str)))


def _source(column: str, value: Any) -> str | Unreadable:
    """The name of a source; "" for an empty cell."""
    name = "" if value in ("", None) else text_of(column, value)
    if isinstance(name, str) and len(name) > MAX_SOURCE_NAME:
        return Unreadable(f"{column} longer than {MAX_SOURCE_NAME} characters")
    return name


def _without_held_out(
    read: Callable[[], Documents], config: FilesData, recipe_folder: Path, name: str
) -> Documents:
    judged = load_files(config, recipe_folder, name).split("validation").texts
    held_out = {text_hash(texts) for texts in judged}
    yield from (
        found
        for found in read()
        if isinstance(found, SetAside) or text_hash(found.texts) not in held_out
    )
