"""Runs a recipe: from a file, from a run's own folder (resume), or built in memory.

A run holds the lock of its folder, handles signals, saves the traceback of a crash in the folder,
and checks the gates when all steps are done and saved.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from attar.artifacts import write_text
from attar.errors import AttarError, StoppedError, UsageError
from attar.escaping import for_terminal
from attar.extras import training_explained
from attar.progress import Progress
from attar.recipe.checking.doubts import settings_in_doubt
from attar.recipe.keys import Fingerprints
from attar.recipe.load import parse_recipe, read_text
from attar.recipe.outcome.aggregate import write_sweep
from attar.recipe.outcome.findings import findings
from attar.recipe.outcome.gates import check_gates
from attar.recipe.outcome.summary import RunSummary
from attar.recipe.outcome.sweep import expand
from attar.recipe.running.changes import THE_REST, input_changed, recipe_changes
from attar.recipe.running.engine import Engine, require_own_folders
from attar.recipe.running.lock import refusals_explained, run_lock
from attar.recipe.running.run_log import logged
from attar.recipe.running.saved import (
    RECIPE_JSON,
    Saved,
    Source,
    changed_since,
    read_saved,
    save,
)
from attar.recipe.running.signals import stop_requests
from attar.recipe.running.time_left import TimeLeft, planned_seconds
from attar.recipe.running.trackers import tracking
from attar.recipe.running.versions import versions
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS, StepKind, as_table
from attar.report.reading import read_made
from attar.report.sections.next_command import next_command

CRASH_FILE = "crash.txt"


def run_recipe(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    quiet: bool = False,
    enforce_gates: bool = True,
    estimates: Mapping[str, float] | None = None,
    keep_replaced: bool = False,
) -> RunSummary:
    """Run a recipe file.

    Args:
        path: the TOML file; relative paths in it start at its folder.
        overrides: `dotted.path=value`, as with `--set`.
        out: folder for runs; the run's folder is `<out>/<name>`. None: `runs` in the current
            folder.
        quiet: whether to print no progress.
        enforce_gates: whether to raise if a gate is missed; the summary has the outcome anyway.
        estimates: step → expected seconds, for the remaining time; None: from the plan.
        keep_replaced: whether to keep replaced artifacts in the folder `.kept` of the run.
    Raises:
        AttarError: a problem that the user can fix; see `attar.errors`.
    """
    path = Path(path)
    text = read_text(path)
    recipe = parse_recipe(text, overrides, path=path)
    where = path.resolve()
    return run_resolved(
        recipe,
        Source(where.parent, where, text, tuple(overrides)),
        Path("runs" if out is None else out) / recipe.name,
        progress=Progress(quiet=quiet),
        enforce_gates=enforce_gates,
        estimates=estimates,
        keep_replaced=keep_replaced,
    )


def resume_run(
    folder: Path,
    *,
    accept_changes: bool = False,
    quiet: bool = False,
    enforce_gates: bool = True,
    keep_replaced: bool = False,
) -> RunSummary:
    """Continue the run in `folder` with its original recipe.

    Args:
        accept_changes: whether to start steps over if their data, model or code has changed.
        keep_replaced: as `run_recipe`.
    Raises:
        UsageError: the folder is not a run folder, or there are changes that were not accepted.
        AttarError: as `run_recipe`.
    """
    folder = Path(folder)
    saved = read_saved(folder)
    progress = Progress(quiet=quiet)
    if changed_since(saved.source):
        changes = recipe_changes(saved)
        what = "cannot be read" if changes is None else "; ".join(changes) or "its text only"
        progress.warn(
            f"{saved.source.path} is not what this run began with ({what}); continuing with the "
            f"saved recipe (for the new one: attar run {saved.source.path})"
        )
    return run_resolved(
        saved.recipe,
        saved.source,
        folder,
        progress=progress,
        enforce_gates=enforce_gates,
        as_before=None if accept_changes else saved,
        keep_replaced=keep_replaced,
    )


def run_resolved(
    recipe: Recipe,
    source: Source,
    folder: Path,
    *,
    progress: Progress | None = None,
    enforce_gates: bool = True,
    estimates: Mapping[str, float] | None = None,
    kinds: Mapping[str, StepKind] = STEPS,
    fingerprints: Fingerprints | None = None,
    as_before: Saved | None = None,
    keep_replaced: bool = False,
) -> RunSummary:
    """Run a checked recipe in `folder`.

    Args:
        as_before: the run to continue; changes since then are an error.
        kinds: the table of steps; replaced only in tests of the engine.
        fingerprints: functions that fingerprint data and models; None: the default ones.
    """
    progress = progress or Progress()
    expanded = expand(recipe, kinds)
    for doubt in settings_in_doubt(recipe):
        progress.warn(doubt)
    with (
        running_in(folder) as place,
        logged(place, progress),
        tracking(recipe.run.log, recipe.name, place) as track,
        stop_requests(progress.is_quiet) as should_stop,
    ):
        engine = Engine(
            expanded.recipe,
            source.recipe_folder,
            place,
            kinds=kinds,
            progress=progress,
            should_stop=should_stop,
        )
        engine.track = track
        saved = Saved(recipe, source)
        if not (place / RECIPE_JSON).is_file():
            save(place, saved)  # so that resume works even if data is missing
        engine.find_keys(fingerprints)
        if as_before is not None:
            require_unchanged(as_before, engine)
        save(place, replace(saved, keys=engine.keys, made_from=engine.made_from))
        engine.find_reusable()
        engine.say_intents(keep_replaced=keep_replaced)
        if engine.missing:
            engine.choose_threads()
        if estimates is None and engine.works:
            # In quiet runs too, because planning finds errors that would otherwise occur later.
            estimates = planned_seconds(
                expanded, source.recipe_folder, progress, engine.missing, engine.intents
            )
        engine.time_left = TimeLeft(estimates or {})
        steps = engine.run(lambda: write_sweep(expanded, place))
        engine.complete_cards(steps)
        metrics = {step.name: step.metrics for step in steps} | write_sweep(expanded, place)
        gates = check_gates(recipe.gates, metrics, place)
        if keep_replaced:
            engine.keep_replaced()
        elif all(gate.passed for gate in gates):
            engine.forget_replaced()
        else:
            engine.say_what_is_kept()
    plain = as_table(expanded.recipe)
    made = read_made({step.name: step.folder for step in steps}, plain)
    summary = RunSummary(
        recipe.name,
        place,
        tuple(steps),
        tuple(gates),
        tuple(findings(made, plain)),
        next_command(made, plain, folder),
    )
    if enforce_gates:
        summary.require_gates()
    return summary


def require_unchanged(before: Saved, engine: Engine) -> None:
    """Check that data, models and code of a run have not changed since it started.

    Raises:
        UsageError: a key differs; the message lists the changes and how to start over.
    """
    if not before.keys:
        return
    differing = {name for name, key in engine.keys.items() if before.keys.get(name) != key}
    if not differing:
        return
    inherited = {*map(input_changed, differing), THE_REST}
    found = {
        name: [
            change
            for change in engine.changes(name, before.made_from.get(name, {}))
            if change not in inherited
        ]
        for name in engine.order
        if name in differing
    }
    raise UsageError(
        f"{engine.folder}: this is not what the run began with, so nothing was run; restore it and "
        f"resume, or rerun {', '.join(found)} with: attar resume {shlex.quote(str(engine.folder))} "
        "--accept-changes",
        [f"  - {name}: {'; '.join(what)}" for name, what in found.items() if what],
    )


@contextmanager
def running_in(folder: Path) -> Generator[Path]:
    """Hold the folder's lock, print how to continue after a stop, save the traceback of a crash."""
    with refusals_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    with run_lock(folder):
        with refusals_explained(folder):
            # The first write besides the lock, which may exist already: this is where a read-only
            # folder fails.
            write_text(folder / CRASH_FILE, "")
            (folder / CRASH_FILE).unlink()
        require_own_folders(folder)
        try:
            with training_explained():
                yield folder
        except StoppedError as error:
            where = str(error).partition(";")[0]
            how = f"attar resume {shlex.quote(str(folder))}"
            raise StoppedError(f"{where}; everything is saved; continue with: {how}") from None
        except AttarError:
            raise
        except Exception:
            _keep_traceback(folder)
            raise


def _keep_traceback(folder: Path) -> None:
    made_by = " ".join(f"{name} {version}" for name, version in versions().items())
    try:
        text = f"{made_by}\n\n{traceback.format_exc()}"
        write_text(folder / CRASH_FILE, text.encode("utf-8", "backslashreplace").decode())
    except (OSError, AttarError) as error:
        # The crash is more important than a failure to save its traceback.
        print(for_terminal(f"warning: no {CRASH_FILE} could be written ({error})"), file=sys.stderr)
