"""The rows of the zero-shot tasks, from a folder of files or from the hub.

    <path>/<task>/<split>.jsonl.gz      or another format; StoryCloze: the only file of its folder

A benchmark with rows missing is another benchmark, so a row that cannot be used stops the step.
Which rows are taken where fewer are wanted never depends on a step's seed: all models of all runs
are asked the same. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from attar.artifacts import sha256_of
from attar.data.config import HubData
from attar.data.hub import hub_records
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.locate import FORMATS, format_of, stem_of
from attar.data.reading.records import read_records
from attar.errors import DataError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.zero_shot.tasks import TASKS, Question, Row, ZeroShotTask
from attar.seeds import generator

VERSION = 1
"""Raise it with every change after which the same files ask other questions."""
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


def fingerprint(
    config: EvaluateStep, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
) -> Any:
    """What a step's key must know of its tasks; None: the step has none.

    Raises:
        DataError: a task's file is not there.
    """
    if not config.tasks:
        return None
    wanted = [TASKS[name] for name in sorted(config.tasks)]
    if config.hub:
        return [VERSION, {task.name: task.hub.revision for task in wanted if task.hub}]
    files = find_files(config, recipe_folder)
    return [VERSION, {name: [*file.suffixes, sha256(file)] for name, file in files.items()}]


def find_files(config: EvaluateStep, recipe_folder: Path) -> dict[str, Path]:
    """Task → its file.

    Raises:
        DataError: with all that are missing, and where each belongs.
    """
    root = recipe_folder / os.path.expanduser(config.path or "")  # noqa: PTH111 - unknown users stay
    found = {name: _file_of(TASKS[name], root) for name in config.tasks}
    if missing := [name for name, file in found.items() if file is None]:
        places = [f"{name}: {_place_of(TASKS[name], root)}" for name in missing]
        raise DataError(
            f"{len(missing)} of {len(found)} zero-shot tasks have no file; put each where it is "
            "looked for, correct path, or leave the task out of tasks",
            places,
        )
    return {name: file for name, file in found.items() if file is not None}


def _place_of(task: ZeroShotTask, root: Path) -> str:
    if task.split is None:
        return (
            f"{root / task.name}/<one file>.csv, your licensed copy with the columns "
            f"{', '.join(task.columns)}"
        )
    return (
        f"{root / task.name / task.split}.jsonl.gz (or {' '.join(FORMATS)}), with the columns "
        f"{', '.join(task.columns)}"
    )


def _file_of(task: ZeroShotTask, root: Path) -> Path | None:
    """The file of its split; None: there is none, or it is not clear which."""
    folder = root / task.name
    try:
        files = [file for file in sorted(folder.iterdir()) if file.is_file() and format_of(file)]
    except (OSError, ValueError):
        return None
    fitting = [file for file in files if task.split in (None, stem_of(file))]
    return fitting[0] if len(fitting) == 1 else None


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
    """A row that can be asked.

    Raises:
        DataError: it cannot, and why.
    """
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
        raise DataError(f"{where} cannot be asked ({error}); correct or remove it") from error
    return row

