"""Writes the report of a finished or unfinished run again, from the artifacts of its steps.

Only the report step runs, and no keys are computed, so data and models are not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attar.artifacts import RESULT_FILE, key_of, verify
from attar.config import Config
from attar.errors import UsageError
from attar.progress import Progress
from attar.recipe.outcome.aggregate import write_sweep
from attar.recipe.outcome.sweep import expand
from attar.recipe.run import running_in
from attar.recipe.running.engine import Engine
from attar.recipe.running.saved import Saved, read_saved
from attar.recipe.running.signals import stop_requests
from attar.recipe.steps import STEPS, StepKind, kind_of
from attar.report.config import ReportStep

DEFAULT_NAME = "report"


def report_again(
    folder: Path, *, quiet: bool = False, kinds: Mapping[str, StepKind] = STEPS
) -> Path:
    """Write the report of the run in `folder` from its published steps.

    Returns: path of the page.
    Raises:
        UsageError: the folder is not a run folder, or no step is published.
    """
    saved = read_saved(Path(folder))
    expanded = expand(saved.recipe, kinds)
    steps: dict[str, Config] = dict(expanded.recipe.steps)
    reports = {name: s for name, s in steps.items() if kind_of(s, kinds).reads_everything}
    name, report = next(iter(reports.items()), (DEFAULT_NAME, ReportStep()))
    with running_in(Path(folder)) as place, stop_requests(quiet) as should_stop:
        made = {
            step: config
            for step, config in steps.items()
            if step not in reports and (place / step / RESULT_FILE).is_file()
        }
        if not made:
            raise UsageError(f"no step of {place} is finished yet, so there is nothing to report")
        engine = Engine(
            expanded.recipe.model_copy(update={"steps": {**made, name: report}}),
            saved.source.recipe_folder,
            place,
            kinds=kinds,
            progress=Progress(quiet=quiet),
            should_stop=should_stop,
        )
        write_sweep(expanded, place)
        for step in made:
            engine.require_artifact(step)
        keys = {step: verify(place / step, engine.hashes.sha256).key for step in made}
        engine.make(name, _key(saved, name, keys))
        engine.forget_replaced(f"{name}-*")
    return place / name / "index.html"


def _key(saved: Saved, report: str, made: Mapping[str, str]) -> str:
    """The report's key from the run if all steps are up to date. Otherwise a key that no run uses,
    so that the report of an incomplete run is not reused for the complete one."""
    wanted = {name: key for name, key in saved.keys.items() if name in made}
    whole = wanted == dict(made) and len(saved.keys) - len(made) == (report in saved.keys)
    return saved.keys[report] if whole and report in saved.keys else key_of(["partial", dict(made)])
