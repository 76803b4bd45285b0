"""Files of the zero-shot tasks, and their hash for a step's key.

    <path>/<task>/<split>.jsonl.gz      or another format; StoryCloze: the only file in its folder

Imports neither torch nor numpy, so that a recipe is checked in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attar.artifacts import sha256_of
from attar.config import in_recipe_folder
from attar.data.reading.locate import format_of, stem_of
from attar.errors import DataError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.zero_shot.tasks import TASKS, ZeroShotTask

VERSION = 1
"""Increment when a change makes the same files give different questions."""


def fingerprint(
    config: EvaluateStep, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
) -> Any:
    """Content of the tasks for a step's key; None if the step has no tasks."""
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
        DataError: files are missing; the message lists them and their expected paths.
    """
    root = in_recipe_folder(config.path or "", recipe_folder)
    found = {name: _file_of(TASKS[name], root) for name in config.tasks}
    if missing := [name for name, file in found.items() if file is None]:
        places = [f"{name}: {_place_of(TASKS[name], root)}" for name in missing]
        raise DataError(
            f"{len(missing)} of {len(found)} zero-shot tasks have no file; put each file at its "
            "path below, correct path, or remove the task from tasks",
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
        f"{root / task.name / task.split}.jsonl.gz (or .jsonl, .jsonl.zst, .parquet), with the "
        f"columns {', '.join(task.columns)}"
    )


def _file_of(task: ZeroShotTask, root: Path) -> Path | None:
    """The file of the task's split; None if there is none."""
    folder = root / task.name
    try:
        files = [file for file in sorted(folder.iterdir()) if file.is_file() and format_of(file)]
    except (OSError, ValueError):
        return None
    fitting = [file for file in files if task.split in (None, stem_of(file))]
    if len(fitting) > 1:
        raise DataError(
            f"the zero-shot task {task.name} has {len(fitting)} files in {folder}: "
            f"{', '.join(file.name for file in fitting)}; leave one of them there"
        )
    return fitting[0] if fitting else None
