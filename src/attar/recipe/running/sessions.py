"""How long a step took in all, when a stop or a kill cut it into several sessions.

A file beside the step's scratch folder holds the seconds of the sessions that are over. A session
that was killed could not write its own: it counts up to the last file that it left in the scratch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from attar.artifacts import write_text

SUFFIX = ".seconds"


@contextmanager
def session(scratch: Path) -> Generator[Callable[[], float]]:
    """Yield a function that gives the seconds spent so far, all sessions together."""
    file = scratch.with_name(scratch.name + SUFFIX)
    before, began = _earlier(file, scratch), time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - began

    _write(file, before, is_over=False)
    try:
        yield seconds
    except BaseException:
        with suppress(Exception):  # the step's own error matters more
            _write(file, seconds(), is_over=True)
        raise
    file.unlink(missing_ok=True)


def _earlier(file: Path, scratch: Path) -> float:
    """Seconds of the sessions before this one; 0 where nothing can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        seconds, began = float(content["seconds"]), file.stat().st_mtime
        if not content["is_over"]:  # killed
            seconds += max([0.0, *(path.stat().st_mtime - began for path in scratch.rglob("*"))])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
    return seconds


def _write(file: Path, seconds: float, *, is_over: bool) -> None:
    write_text(file, json.dumps({"seconds": round(seconds, 3), "is_over": is_over}))
