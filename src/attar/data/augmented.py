"""Rows that were made from the training rows of a data set, and the promise that it was these rows.

A recipe that names the augment step as data reads the data that the step read, with the new rows
after the rows of its train split. The other splits stay as they are.

One file of lines `{"row": 7, "copy": 0, "texts": ["…"]}`: copy 0 of training row 7, with a "label"
where the source row's is to be kept. A row without one is unlabelled: what a changed sentence says
is for a teacher to judge.

Beside it stands a hash of the training texts, in their order. Rows that were made from others (a
split that grew, another choice of `train_rows`) are refused: row 7 would be another sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from attar.artifacts import read_json, write_json
from attar.data.load import data_of
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.records import read_records
from attar.data.tables import Split, TextData, unlabelled_rows
from attar.errors import ArtifactError, DataError
from attar.step import MadeRows, StepContext

ROWS_FILE = "rows.jsonl.gz"
SOURCE_FILE = "source.json"


def texts_digest(split: Split) -> str:
    """A hash of the texts of a split in their order; 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for texts in split.texts:
        digest.update(json.dumps(texts, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()[:32]


def write_source(folder: Path, data: str, split: Split) -> None:
    """Say in an artifact which rows its rows were made from."""
    write_json(
        folder / SOURCE_FILE, {"data": data, "rows": len(split), "texts": texts_digest(split)}
    )


def row_line(row: int, copy: int, texts: tuple[str, ...], label: float | None) -> str:
    """One line of the file, without its end."""
    content: dict[str, Any] = {"row": row, "copy": copy, "texts": texts}
    if label is not None:
        content["label"] = label
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def augmented_data(made: MadeRows, context: StepContext) -> TextData:
    """The data that an augment step read, with its new rows after those of the train split.

    Raises:
        DataError: the data is not what the rows were made from.
        ArtifactError: the file of new rows is damaged.
    """
    # its seed, so that `train_rows` draws the rows that the others were made from
    data = data_of(replace(context, seed=made.seed), made.step.data)
    train = data.split("train")
    with_made = train + read_augmented(made.folder, train, data=data.name)
    return replace(data, splits={**data.splits, "train": with_made})


def read_augmented(folder: Path, train: Split, *, data: str) -> Split:
    """The new rows of an artifact, in the order of their sources.

    Args:
        train: the rows that will be trained on beside them.
        data: its name, for messages.
    Raises:
        DataError: they were made from other rows than `train`'s.
        ArtifactError: the file is damaged.
    """
    source = read_json(folder / SOURCE_FILE)
    if source.get("texts") != texts_digest(train):
        raise DataError(
            f"{folder} holds rows made from {source.get('rows')} training rows of data "
            f"{source.get('data')!r}; data {data!r} now has {len(train)} training rows, and they "
            f"are not the same texts; remove {folder} and run again"
        )
    texts: list[tuple[str, ...]] = []
    labels: list[Any] = []
    none = unlabelled_rows(train.labels, 1)[0]
    for number, record in enumerate(read_records(folder / ROWS_FILE), start=1):
        if isinstance(record, Unreadable) or not _is_row(record):
            raise ArtifactError(
                f"{folder / ROWS_FILE}, line {number}, is not an augmented row; remove "
                f"{folder} and run again"
            )
        texts.append(tuple(record["texts"]))
        labels.append(record.get("label", none))
    shape = (len(labels), *train.labels.shape[1:])
    return Split(tuple(texts), np.array(labels, dtype=train.labels.dtype).reshape(shape))


def with_copies(data: TextData, copies: int, keep_labels: bool) -> TextData:
    """What will stand where such rows are read, before they are made: each source's own texts."""
    train = data.split("train")
    labels = train.labels if keep_labels else unlabelled_rows(train.labels, len(train))
    made = Split(tuple(train.texts) * copies, np.concatenate([labels] * copies))
    return replace(data, splits={**data.splits, "train": train + made})


def _is_row(record: Mapping[str, Any]) -> bool:
    texts = record.get("texts")
    return isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts)
