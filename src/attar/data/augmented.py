"""Training rows that were made from other rows, with a check that the source rows are unchanged.

If a recipe names an augment step as data, it reads the data that the step read, with the new rows
appended to the train split. The other splits are unchanged.

The rows are stored as lines `{"row": 7, "copy": 0, "texts": ["…"]}`: copy 0 of training row 7, with
a "label" if the source row's label is kept. A row without a label is unlabelled: after the change,
only a teacher can say what its label should be.

A hash of the training texts, in their order, is stored with the rows. If the training rows have
changed since (a larger split, another choice of `train_rows`), the augmented rows are refused,
because row 7 would be another sentence.
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
    """Hash of the texts of a split, in their order: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for texts in split.texts:
        digest.update(json.dumps(texts, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()[:32]


def write_source(folder: Path, data: str, split: Split) -> None:
    """Record in an artifact which rows its rows were made from."""
    write_json(
        folder / SOURCE_FILE, {"data": data, "rows": len(split), "texts": texts_digest(split)}
    )


def row_line(row: int, copy: int, texts: tuple[str, ...], label: float | None) -> str:
    """One line of the file, without a line break."""
    content: dict[str, Any] = {"row": row, "copy": copy, "texts": texts}
    if label is not None:
        content["label"] = label
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def augmented_data(made: MadeRows, context: StepContext) -> TextData:
    """The data that an augment step read, with the new rows appended to its train split."""
    # the augment step's seed, so that `train_rows` samples the same source rows
    data = data_of(replace(context, seed=made.seed), made.step.data)
    train = data.split("train")
    with_made = train + read_augmented(made.folder, train, data=data.name)
    return replace(data, splits={**data.splits, "train": with_made})


def read_augmented(folder: Path, train: Split, *, data: str) -> Split:
    """The new rows of an artifact, in the order of their sources.

    Args:
        train: the training rows that the new rows must have been made from.
        data: name of the data, for messages.

    Raises:
        DataError: the new rows were made from rows other than `train`.
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
    """A stand-in for augmented data before the rows are made: each copy has its source's own
    texts."""
    train = data.split("train")
    labels = train.labels if keep_labels else unlabelled_rows(train.labels, len(train))
    made = Split(tuple(train.texts) * copies, np.concatenate([labels] * copies))
    return replace(data, splits={**data.splits, "train": train + made})


def _is_row(record: Mapping[str, Any]) -> bool:
    texts = record.get("texts")
    return isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts)
