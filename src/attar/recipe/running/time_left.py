"""Remaining time of a run, from estimates corrected by measurements, and the total time of a step
over several sessions.

    left = (seconds measured / seconds estimated, over the steps made so far) · estimate of the rest

If an estimate is missing for any remaining step, no time is given. The durations of earlier
sessions are stored in a file next to the step's scratch folder. A killed session could not write
its duration, so it counts until its last file in the scratch folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attar.artifacts import write_text
from attar.errors import ArtifactError, DataError, ModelError, UsageError
from attar.progress import Progress
from attar.recipe.outcome.sweep import Expanded
from attar.recipe.running.intents import Intent
from attar.recipe.running.memory import require_memory


class TimeLeft:
    """Estimates the remaining time, corrected after each step."""

    def __init__(self, estimates: Mapping[str, float]) -> None:
        self._estimates = estimates
        self._measured = 0.0
        self._estimated = 0.0

    def made(self, name: str, seconds: float) -> None:
        """Record that step `name` took `seconds`."""
        if name in self._estimates:
            self._measured += seconds
            self._estimated += self._estimates[name]

    def seconds(self, left: Iterable[str]) -> float | None:
        """Estimated seconds for the steps `left`; None if one of them has no estimate.

        Example:
            >>> time = TimeLeft({"teacher": 10.0, "student": 20.0})
            >>> time.made("teacher", 15.0)
            >>> time.seconds(["student"])
            30.0
        """
        names = list(left)
        if not names or any(name not in self._estimates for name in names):
            return None
        factor = self._measured / self._estimated if self._estimated > 0 else 1.0
        return factor * sum(self._estimates[name] for name in names)


def planned_seconds(
    expanded: Expanded,
    recipe_folder: Path,
    progress: Progress,
    names: Collection[str],
    intents: Sequence[Intent],
) -> Mapping[str, float]:
    """Step → seconds according to `attar plan`, for every copy of a sweep.

    Args:
        names: the steps that will run.
        intents: what the run does with each step.

    Unexpected errors in planning only give a warning, because the time is not essential.

    Raises:
        ModelError, DataError, UsageError, ArtifactError: a step would fail with this error, perhaps
            hours later.
        ResourceError: one of the steps `names` does not fit in memory.
    """
    from attar.recipe.plan import plan_recipe

    try:
        plan = plan_recipe(expanded.recipe, recipe_folder, intents=intents)
    except (ModelError, DataError, UsageError, ArtifactError):
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        progress.warn(f"the time of the whole run cannot be estimated ({reason})")
        return {}
    require_memory(plan, progress, names)
    return {step.name: step.seconds for step in plan.steps}


SUFFIX = ".seconds"


@contextmanager
def session(scratch: Path) -> Generator[Callable[[], float]]:
    """Yield a function that returns the seconds so far, over all sessions."""
    file = scratch.with_name(scratch.name + SUFFIX)
    before, began = _earlier(file, scratch), time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - began

    _write(file, before, is_over=False)
    try:
        yield seconds
    except BaseException:
        with suppress(Exception):  # the step's own error is more important
            _write(file, seconds(), is_over=True)
        raise
    file.unlink(missing_ok=True)


def _earlier(file: Path, scratch: Path) -> float:
    """Seconds of earlier sessions; 0 if unknown."""
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
