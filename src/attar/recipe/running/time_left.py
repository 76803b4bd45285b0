"""How long the whole run still takes, from estimates made beforehand and corrected by what was
measured since.

    left = (seconds measured / seconds estimated, over the steps made so far) · estimate of the rest

Without an estimate for every step that is left there is no answer: a number that pretends is worse
than none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

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

    A plan that fails is a warning: not knowing the time is no reason not to run.

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
        progress.warn(f"the time the whole run will take cannot be told ({reason})")
        return {}
    require_memory(plan, progress, names)
    return expected_seconds(plan)
