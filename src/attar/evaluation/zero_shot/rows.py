"""The rows of the zero-shot tasks, from a folder of files or from the hub, as questions.

A benchmark with rows missing is another benchmark, so a row that cannot be used stops the step.
Which rows are taken where fewer are wanted never depends on a step's seed: all models of all runs
are asked the same. Imports no torch.
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
    """What is asked of one task."""

    task: ZeroShotTask
    rows: tuple[Row, ...]
    """As files have them."""
    questions: tuple[Question, ...]
    taken: str
    """Which rows, in words."""
    source: str

    @property
    def chance(self) -> float:
        """How often guessing is right."""
        return float(np.mean([question.chance for question in self.questions]))


def read_tasks(config: EvaluateStep, recipe_folder: Path) -> dict[str, TaskRows]:
    """The rows of every task of a step, in the order of the table.

    Raises:
        DataError: a task's file or its data set is not there, or a row cannot be used.
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
    """Rows with their numbers, and which they are in words."""
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
    """A row that can be asked."""
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
