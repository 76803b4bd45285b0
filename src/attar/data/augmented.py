"""Rows that were made from the training rows of a data set, and the promise that it was these rows.

One file of lines `{"row": 7, "copy": 0, "texts": ["…"]}`: copy 0 of training row 7, with a "label"
where the source row's is to be kept. A row without one is unlabelled: what a changed sentence says
is for a teacher to judge.

Beside it stands a hash of the training texts, in their order. Rows that were made from others (a
split that grew, another choice of `train_rows`) are refused: row 7 would be another sentence.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attar.artifacts import read_json, write_json
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.records import read_records
from attar.data.tables import UNLABELLED, Split
from attar.errors import ArtifactError, DataError

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


def read_augmented(folder: Path, train: Split, *, data: str) -> Split:
    """The made rows of an artifact, in the order of their sources.

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
            f"{source.get('data')!r}; here data {data!r} has {len(train)} training rows, and they "
            "are not the same texts; name the same data in both steps, and where it has "
            f"train_rows, set data.{data}.rows_seed, so that every seed reads the same rows"
        )
    texts: list[tuple[str, ...]] = []
    labels: list[float] = []
    is_score = train.labels.dtype.kind == "f"
    none = math.nan if is_score else UNLABELLED
    for number, record in enumerate(read_records(folder / ROWS_FILE), start=1):
        if isinstance(record, Unreadable) or not _is_row(record):
            raise ArtifactError(
                f"{folder / ROWS_FILE}, line {number}, is no augmented row; remove {folder} and "
                "run again"
            )
        texts.append(tuple(record["texts"]))
        labels.append(record.get("label", none))
    return Split(tuple(texts), np.array(labels, dtype=np.float32 if is_score else np.int64))


def joined(first: Split, second: Split) -> Split:
    """The rows of both, those of the first one first."""
    return Split(first.texts + second.texts, np.concatenate([first.labels, second.labels]))


def _is_row(record: Mapping[str, Any]) -> bool:
    texts = record.get("texts")
    return isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts)
