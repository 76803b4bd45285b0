"""CNN/DailyMail and XSum: news articles with summaries, from files or from the hub.

Each task is one row of a literal table. CNN/DailyMail's highlights are three or four sentences, one
per line; XSum's summary is one sentence. Files use the hub's column and split names:
`<path>/<task>/<split>.jsonl[.gz]` (or any format that `files` reads).

Source: See et al. 2017 (CNN/DailyMail 3.0.0, not anonymised); Narayan et al. 2018 (XSum).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from attar.data.config import SummarizationData
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.locate import task_files
from attar.data.reading.records import Record, read_records
from attar.data.reading.rows import Columns, check_set_aside, settle_targets, take_texts
from attar.data.tables import SetAside, Split, TextData
from attar.errors import DataError
from attar.extras import require
from attar.tasks.table import TEXT_TO_TEXT

ROWS_LOOKED_AT = 100
"""Number of rows searched for a readable one, to see the columns."""


@dataclass(frozen=True)
class TaskRow:
    """What differs between the tasks."""

    hub: str
    name: str | None
    """Name of the configuration on the hub."""
    text: str
    target: str


TASKS: Mapping[str, TaskRow] = {
    "cnn_dailymail": TaskRow("abisee/cnn_dailymail", "3.0.0", "article", "highlights"),
    "xsum": TaskRow("EdinburghNLP/xsum", None, "document", "summary"),
}


def load_summarization(config: SummarizationData, recipe_folder: Path, name: str) -> TextData:
    """Load one task, with all splits of its source.

    Raises:
        DataError: the source is missing or damaged, or too many rows of a split are unusable.
    """
    task = TASKS[config.task]
    if config.path is None:
        sources = _hub_records(config, task)
    else:
        files = task_files(config, recipe_folder)
        sources = {split: chain.from_iterable(map(read_records, files[split])) for split in files}
    splits: dict[str, Split] = {}
    set_aside: list[SetAside] = []
    for split, records in sources.items():
        first = list(islice(records, ROWS_LOOKED_AT))
        _check_columns(first, task, config.task, split)
        taken = take_texts(chain(first, records), Columns((task.text,), task.target), split)
        splits[split], faults = settle_targets(taken)
        check_set_aside(name, split, taken.num_read, faults, config.max_set_aside)
        set_aside += faults
    return TextData(
        name=name,
        objective=TEXT_TO_TEXT.name,
        label_names=(),
        metrics=TEXT_TO_TEXT.metrics,
        splits=splits,
        set_aside=tuple(set_aside),
    )


def _check_columns(
    rows: list[Record | Unreadable], task: TaskRow, task_name: str, split: str
) -> None:
    first = next((row for row in rows if isinstance(row, dict) and row), None)
    missing = [name for name in (task.text, task.target) if first is not None and name not in first]
    if missing and first is not None:
        raise DataError(
            f"split {split!r} of summarization task {task_name!r} has the columns "
            f"{', '.join(first)}; needed are {task.text} and {task.target}; rename the columns, or "
            'load the files with source = "files", objective = "text_to_text", text = and target ='
        )


def _hub_records(
    config: SummarizationData, task: TaskRow
) -> dict[str, Iterator[Record | Unreadable]]:
    """Load the task from the hub with `datasets`; no code of the repository is run."""
    datasets: Any = require("datasets", "hub")
    try:
        found = datasets.load_dataset(task.hub, task.name, revision=config.revision)
    except Exception as error:  # several libraries raise network errors of their own types
        raise DataError(
            f"summarization task {config.task!r} could not be loaded from the hub ({task.hub}): "
            f"{type(error).__name__}: {error}; check the network, or set path = to a folder that "
            f"holds {config.task}/<split>.jsonl.gz"
        ) from error
    return {str(split): iter(found[split]) for split in found}
