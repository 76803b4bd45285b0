"""Status of a run folder: which steps are done or running, and their main metrics.

It only reads the folder, without its lock and without computing keys, so it is fast and does not
disturb a run. A step's state is determined by the key from the last run.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from attar.artifacts import RESULT_FILE, Result, read_result, verify
from attar.errors import ArtifactError
from attar.escaping import for_terminal
from attar.progress import human_seconds
from attar.recipe.checking.references import table_of
from attar.recipe.outcome.findings import first_quality
from attar.recipe.outcome.gates import GateOutcome, read_gates
from attar.recipe.outcome.sweep import expand
from attar.recipe.run import CRASH_FILE
from attar.recipe.running.engine import KEY_PATTERN, SCRATCH, STAGING
from attar.recipe.running.lock import Holder, lock_holder
from attar.recipe.running.run_log import now_of
from attar.recipe.running.saved import read_saved
from attar.recipe.schema import flattened
from attar.recipe.steps import run_of

State = Literal["done", "outdated", "running", "interrupted", "waiting", "damaged"]
MAIN_METRICS = (
    "validation.accuracy",
    "validation.matthews",
    "validation.pearson",
    "validation.span_f1",
    "validation.squad_f1",
    "mean_sqnr_db",
    "size_mib",
    "num_params",
)
"""Preferred metrics to show for steps other than evaluations."""
FEW = 3
"""Number of metrics to show for a step that has none of the preferred ones."""


@dataclass(frozen=True)
class StepStatus:
    name: str
    run: str
    state: State
    """outdated: made from other settings or data than the current ones. interrupted: started but
    not finished, and not running. damaged: its result.json cannot be read, or a file was changed.
    """
    key: str | None = None
    seconds: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    """The main metrics, by dotted name."""
    problem: str = ""
    """Description of the damage, and what to do."""


@dataclass(frozen=True)
class Status:
    name: str
    folder: Path
    holder: Holder | None
    """The process that is running it."""
    steps: tuple[StepStatus, ...]
    gates: tuple[GateOutcome, ...]
    now: str
    """The current work and its remaining time; "" if nothing is running."""
    crash: Path | None
    """File with the traceback of the last run, if it crashed."""

    def as_json(self) -> dict[str, Any]:
        crash = None if self.crash is None else str(self.crash)
        return {**asdict(self), "folder": str(self.folder), "crash": crash}

    def text(self) -> str:
        names, runs = (max(len(getattr(s, of)) for s in self.steps) for of in ("name", "run"))
        lines = [f"{self.name}: {self._headline()}", *([f"  {self.now}"] if self.now else [])]
        for step in self.steps:
            took = "" if step.seconds is None else f"  {human_seconds(step.seconds):>12}"
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in step.metrics.items())
            what = f"  {step.name:{names}}  {step.run:{runs}}  {step.state:11}  {step.key or '':16}"
            lines.append(f"{what}{took}  {numbers}".rstrip())
        lines += [f"  {step.name}: {step.problem}" for step in self.steps if step.problem]
        lines += [f"  gate {'passed' if g.passed else 'MISSED'}: {g.sentence}" for g in self.gates]
        if self.crash is not None:
            lines.append(f"  the last run ended with a bug in attar: {self.crash}")
        return "\n".join(map(for_terminal, lines))

    def require_whole(self) -> None:
        """Raises: ArtifactError if files of a step are damaged."""
        if damaged := [step.name for step in self.steps if step.state == "damaged"]:
            steps = (
                f"{len(damaged)} of {len(self.steps)} steps {'is' if len(damaged) == 1 else 'are'}"
            )
            raise ArtifactError(
                f"{steps} damaged: {', '.join(damaged)}; remove their folders and run again to "
                "rebuild them"
            )

    def _headline(self) -> str:
        done = sum(step.state == "done" for step in self.steps)
        counted = f"{done} of {len(self.steps)} steps done"
        if self.holder is not None:
            who = f"process {self.holder.pid} on {self.holder.host}"
            return f"{counted}; running, {who} since {self.holder.since}"
        if any(step.state == "damaged" for step in self.steps):
            return f"{counted}; not running"
        if done < len(self.steps):
            how = f"attar resume {shlex.quote(str(self.folder))}"
            return f"{counted}; not running; continue with: {how}"
        return counted


def status_of(folder: Path, *, every_byte: bool = False) -> Status:
    """The status of the run in `folder`.

    Args:
        every_byte: read all files of the finished steps and compare them with their manifests.
    Raises:
        UsageError: the folder is not that of a run.
    """
    folder = Path(folder)
    saved = read_saved(folder)
    holder = lock_holder(folder)
    steps = [
        _step(folder, name, run_of(step), saved.keys.get(name), holder is not None, every_byte)
        for name, step in expand(saved.recipe).recipe.steps.items()
    ]
    crash = folder / CRASH_FILE
    return Status(
        name=saved.recipe.name,
        folder=folder,
        holder=holder,
        steps=tuple(steps),
        gates=tuple(read_gates(folder)),
        now="" if holder is None else now_of(folder),
        crash=crash if crash.is_file() else None,
    )


def _step(
    folder: Path, name: str, run: str, wanted: str | None, is_held: bool, every_byte: bool
) -> StepStatus:
    is_begun = any((folder / STAGING).glob(f"{name}-{KEY_PATTERN}"))
    is_left = any((folder / SCRATCH).glob(f"{name}-{KEY_PATTERN}"))
    result: Result | None = None
    if (folder / name / RESULT_FILE).is_file():
        try:
            read = verify if every_byte else read_result
            result = read(folder / name)
        except ArtifactError as error:
            return StepStatus(name, run, "damaged", problem=str(error))
    state: State
    if result is not None and result.key == wanted:
        state = "done"
    elif is_held and is_begun:
        state = "running"
    elif is_left or is_begun:
        state = "interrupted"
    else:
        state = "waiting" if result is None else "outdated"
    if result is None:
        return StepStatus(name, run, state)
    return StepStatus(name, run, state, result.key, result.seconds, main_metrics(result))


def main_metrics(result: Result) -> dict[str, float]:
    """The main metrics: the quality of every model for an evaluation, otherwise the first ones.

    Example:
        >>> made = Result("int8", "quantize", "k", metrics={"weight_bits": 8, "size_mib": 2.5})
        >>> main_metrics(made)
        {'size_mib': 2.5}
    """
    models = result.metrics.get("models")
    if isinstance(models, Mapping):
        tables = cast("Mapping[str, Any]", models)
        found = {name: first_quality(table_of(table)) for name, table in tables.items()}
        return {name: quality[1] for name, quality in found.items() if quality is not None}
    numbers = flattened(dict(result.metrics))
    flat: dict[str, float] = {
        name: value
        for name, value in numbers.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    wanted = {name: flat[name] for name in MAIN_METRICS if name in flat}
    return wanted or {name: flat[name] for name in list(flat)[:FEW] if "." not in name}
