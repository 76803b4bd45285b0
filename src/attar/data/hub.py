"""Running text of a data set on the hub, streamed with `datasets`.

The problem: a corpus of terabytes cannot be downloaded first, and an interrupted run must continue
where it stopped. The stream state of `datasets` has been wrong after a second resume. The idea: use
`datasets` only to read the rows of a pinned commit, in order, and count the rows here. The cost: a
resumed run reads the earlier rows again.

No code of a repository is run: `datasets` reads Parquet, JSON, CSV and text only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from attar.data.config import HubData
from attar.data.files import text_hash
from attar.data.reading.records import Record
from attar.data.reading.rows import text_of
from attar.data.tables import UNLABELLED, Split, TextData
from attar.errors import AttarError, DataError, did_you_mean
from attar.extras import require
from attar.tasks.table import CAUSAL_LM

HELD_OUT = 0.01
"""Share of the rows to hold out if no validation split is named."""
BEGINNING = 2000
"""Number of documents read for a plan."""


def hub_records(config: HubData, split: str, name: str, *columns: str) -> Iterator[Record]:
    """Selected columns of every row of a split, in order.

    Args:
        name: of the data table, for messages.

    Raises:
        UsageError: `datasets` is not installed.
        DataError: the data set or a column does not exist, or the hub cannot be reached.
    """
    datasets: Any = require("datasets", "hub")
    where = f"data {name!r}: split {split!r} of {config.name!r} on the hub"
    if Path(config.name).exists():  # `datasets` would read this folder instead of the hub
        raise DataError(
            f"{where} has the same name as the folder {Path(config.name).resolve()}; start attar "
            'in another folder, or read the folder with source = "files"'
        )
    done = 0
    try:
        stream = datasets.load_dataset(
            config.name, config.config, split=split, revision=config.revision, streaming=True
        )
        _require_columns(where, columns, list(stream.column_names or columns))
        for record in stream.select_columns(list(columns)):
            done += 1
            yield record
    except AttarError:
        raise
    except Exception as error:  # several libraries raise network errors of their own types
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"{where} cannot be read after row {done:,} ({type(error).__name__}: {reason}); check "
            f"name, config, split, revision ({config.revision[:12]}…) and the network, then run "
            "again; finished shards are kept"
        ) from error


def _require_columns(where: str, columns: tuple[str, ...], known: list[str]) -> None:
    for column in columns:
        if column not in known:
            raise DataError(
                f"{where} has no column {column!r}{did_you_mean(column, known)}; its columns are "
                f"{', '.join(map(repr, known))}"
            )


def is_held_out(config: HubData, text: str) -> bool:
    """Whether a text of `config.split` belongs to the held-out validation split."""
    return config.validation is None and int(text_hash((text,))[:16], 16) < HELD_OUT * 2**64


def load_judged(config: HubData, recipe_folder: Path, name: str) -> TextData:
    """The validation texts only; training texts are read as a stream (`documents`)."""
    texts = _texts(config, config.validation or config.split, name)
    judged = (text for text in texts if config.validation or is_held_out(config, text))
    return TextData(
        name=name,
        objective=CAUSAL_LM.name,
        label_names=(),
        metrics=CAUSAL_LM.metrics,
        splits={"validation": _split(judged, config.validation_rows)},
    )


def load_beginning(config: HubData, recipe_folder: Path, name: str) -> TextData:
    """The validation texts and the first rows of the train split, for a plan."""
    judged = load_judged(config, recipe_folder, name)
    texts = _texts(config, config.split, name)
    train = _split((text for text in texts if not is_held_out(config, text)), BEGINNING)
    note = f"its train split is a stream; only its first {len(train):,} documents are read here"
    return replace(judged, splits={"train": train, **judged.splits}, notes=(note,))


def _texts(config: HubData, split: str, name: str) -> Iterator[str]:
    for record in hub_records(config, split, name, config.text):
        if isinstance(text := text_of(config.text, record[config.text]), str):
            yield text


def _split(texts: Iterator[str], most: int | None) -> Split:
    found = tuple((text,) for text in islice(texts, most))
    return Split(found, np.full(len(found), UNLABELLED, np.int64))
