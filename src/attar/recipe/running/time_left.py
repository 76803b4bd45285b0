"""Time of a run: how long it still takes, by estimates made beforehand and corrected by what was
measured since; and how long a step took in all, when a stop cut it into several sessions.

    left = (seconds measured / seconds estimated, over the steps made so far) · estimate of the rest

Without an estimate for every step that is left there is no answer: a number that pretends is worse
than none. A file beside the step's scratch folder holds the seconds of the sessions that are over.
One that was killed could not write its own: it counts up to the last file that it left there.
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
    """Learns from each step that was made."""

    def __init__(self, estimates: Mapping[str, float]) -> None:
        self._estimates = estimates
        self._measured = 0.0
        self._estimated = 0.0

    def made(self, name: str, seconds: float) -> None:
        """Step `name` took `seconds`."""
        if name in self._estimates:
            self._measured += seconds
            self._estimated += self._estimates[name]

    def seconds(self, left: Iterable[str]) -> float | None:
        """Seconds that the steps `left` will take; None when one of them has no estimate.

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
    """Step → seconds as `attar plan` expects them, for every copy of a sweep.

    Args:
        names: of the steps that will run.
        intents: what the run does with each step.

    A plan that fails is a warning: not knowing the time is not a reason not to run.

    Raises:
        ModelError, DataError, UsageError, ArtifactError: a mistake that one of the steps would
            make too, perhaps hours later.
        ResourceError: one of the steps `names`, which will run, cannot fit into memory.
    """
    from attar.recipe.plan import expected_seconds, plan_recipe

    try:
        plan = plan_recipe(expanded.recipe, recipe_folder, intents=intents)
    except (ModelError, DataError, UsageError, ArtifactError):
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        progress.warn(f"the time of the whole run cannot be estimated ({reason})")
        return {}
    require_memory(plan, progress, names)
    return expected_seconds(plan)


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
