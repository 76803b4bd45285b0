"""The log of a run with times, and its current progress for `attar status`.

    run.log         every line of stderr, also of quiet runs; each session appends to it
    progress.json   the current work; removed at the end of the session

Neither is part of an artifact, so equal runs have equal artifacts. If the disk is full, only log
lines are lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from io import RawIOBase
from pathlib import Path
from typing import Any

from attar.artifacts import read_json, write_json
from attar.errors import ArtifactError, AttarError
from attar.progress import LINE_EVERY_S, Progress, Task, human_seconds
from attar.recipe.checking.references import table_of

LOG_FILE = "run.log"
NOW_FILE = "progress.json"
NOW_EVERY_S = 1.0


class RunLog:
    """Listener that writes messages of a run to its log."""

    def __init__(self, folder: Path, stream: RawIOBase) -> None:
        self._folder, self._stream = folder, stream
        self._line_at = self._now_at = 0.0

    def said(self, line: str) -> None:
        with suppress(OSError):
            moment = datetime.now().astimezone().isoformat(timespec="seconds")
            self._stream.write(f"{moment} {line}\n".encode(errors="backslashreplace"))

    def advanced(self, task: Task) -> None:
        now = time.monotonic()
        if now - self._now_at >= NOW_EVERY_S:
            self._now_at = now
            left = task.seconds_left
            content = {
                "title": task.title,
                "count": task.count,
                "seconds_left": None if left is None else round(left, 1),
            }
            with suppress(OSError, AttarError):
                write_json(self._folder / NOW_FILE, content)
        if now - self._line_at >= LINE_EVERY_S:
            self._line_at = now
            self.said(f"  {task.line()}")


@contextmanager
def logged(folder: Path, progress: Progress) -> Generator[None]:
    """Write the log of a run, including the error that ends it.

    Raises:
        ArtifactError: the path of the log is not a regular file.
    """
    file = folder / LOG_FILE
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise ArtifactError(f"{file} is not a regular file; remove it")
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    # unbuffered, so that a failed write on a full disk is not repeated when the file is closed
    with os.fdopen(descriptor, "ab", buffering=0) as stream:
        log = RunLog(folder, stream)
        log.said(f"begin, process {os.getpid()}")
        try:
            with progress.heard_by(log):
                yield
        except BaseException as error:
            log.said(f"ended by {type(error).__name__}: {error}".rstrip(": "))
            raise
        finally:
            with suppress(OSError):
                (folder / NOW_FILE).unlink(missing_ok=True)
        log.said("done")


def now_of(folder: Path) -> str:
    """Description of the current work; "" if unknown.

    Example: "student: training: 45 %, about 3 min 02 s left"
    """
    try:
        content: Mapping[str, Any] = table_of(read_json(folder / NOW_FILE))
    except (AttarError, OSError):
        return ""
    title, count, left = (content.get(name) for name in ("title", "count", "seconds_left"))
    if not isinstance(title, str) or not isinstance(count, str):
        return ""
    if not isinstance(left, int | float) or isinstance(left, bool):
        return f"{title}: {count}"
    return f"{title}: {count}, about {human_seconds(float(left))} left"
