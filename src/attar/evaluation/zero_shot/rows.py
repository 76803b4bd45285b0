"""Reads the rows of the zero-shot tasks from a folder or the hub, and converts them to questions.

Results are comparable only on the same rows, so a row that cannot be used is an error. If `rows`
limits their number, the choice does not depend on the step's seed, so all models in all runs get
the same questions. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from attar.data.config import HubData
from attar.data.hub import hub_records
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.records import read_records
from attar.errors import DataError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.zero_shot.files import find_files
from attar.evaluation.zero_shot.tasks import TASKS, Question, Row, ZeroShotTask
from attar.seeds import generator

SAMPLE_SEED = 0


@dataclass(frozen=True)
class TaskRows:
    """The questions of one task."""

    task: ZeroShotTask
    rows: tuple[Row, ...]
    """Rows in the format of the files."""
    questions: tuple[Question, ...]
    taken: str
    """Description of the selected rows."""
    source: str

    @property
    def chance(self) -> float:
        """Accuracy of random guessing."""
        return float(np.mean([question.chance for question in self.questions]))


def read_tasks(config: EvaluateStep, recipe_folder: Path) -> dict[str, TaskRows]:
    """Read the rows of all tasks of a step, in the order of the table.

    Raises:
        DataError: the file or dataset of a task is missing, or a row cannot be used.
    """
    return {
        name: _read(task, config, recipe_folder)
        for name, task in TASKS.items()
        if name in config.tasks
    }


def _read(task: ZeroShotTask, config: EvaluateStep, recipe_folder: Path) -> TaskRows:
    records: Iterable[Any]
    if config.hub and task.hub is not None:
        hub = task.hub
        place = {"name": hub.name, "config": hub.config, "split": hub.split}
        data = HubData.model_validate({**place, "revision": hub.revision})
        records = hub_records(data, hub.split, task.name, *hub.columns)
        columns, to_row, source = hub.columns, hub.row, f"{hub.name}@{hub.revision}"
    else:
        file = find_files(config, recipe_folder)[task.name]
        records, source = read_records(file), file.name
        columns, to_row = task.columns, task.mend
    chosen, taken = _chosen(records, config)
    rows, questions = [], []
    for number, record in chosen:
        row = _usable(number, record, columns, to_row, task, source)
        rows.append(row)
        questions.append(task.ask(row))
    if not rows:
        raise DataError(f"task {task.name!r}: {source} has no rows")
    return TaskRows(task, tuple(rows), tuple(questions), taken, source)


def _chosen(records: Iterable[Any], config: EvaluateStep) -> tuple[list[tuple[int, Any]], str]:
    """The selected rows with their numbers, and a description of the selection."""
    if config.rows is None:
        chosen = list(enumerate(records))
        return chosen, f"all {len(chosen):,}"
    if config.sample == "first":
        chosen = list(islice(enumerate(records), config.rows))
        return chosen, f"the first {len(chosen):,}"
    every = list(enumerate(records))
    drawn = generator(SAMPLE_SEED, "zero-shot rows").permutation(len(every))[: config.rows]
    return [every[i] for i in sorted(drawn)], f"{len(drawn):,} drawn from {len(every):,}"


def _usable(
    number: int,
    record: Any,
    columns: tuple[str, ...],
    to_row: Callable[[Row], Row],
    task: ZeroShotTask,
    source: str,
) -> Row:
    """Check that a row can be turned into a question, and return it."""
    where = f"task {task.name!r}: row {number + 1:,} of {source}"
    if isinstance(record, Unreadable):
        raise DataError(f"{where} is unreadable: {record.reason}; get the file again")
    if missing := [column for column in columns if column not in record]:
        raise DataError(
            f"{where} has no column {', '.join(missing)}; the task needs {', '.join(columns)}, the "
            f"row has {', '.join(map(str, record))}"
        )
    try:
        row = to_row(record)
        question = task.ask(row)
        texts = [text for pair in question.pairs for text in pair]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text is not a string")
        if not 0 <= question.label < len(question.pairs):
            raise ValueError(f"label {question.label} of {len(question.pairs)} answers")
        if not all(question.lengths):
            raise ValueError("an answer is empty")
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise DataError(f"{where} cannot be used ({error}); correct or remove it") from error
    return row
