"""Run a recipe: from a file, from a run's own folder (resume), or built in memory.

A run holds its folder's lock, turns signals into a question for the steps, keeps the traceback of a
crash in the folder, and looks at the gates when every step is done and saved.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attar.artifacts import disk_errors_explained
from attar.errors import AttarError, StoppedError
from attar.progress import Progress
from attar.recipe.engine import Engine
from attar.recipe.gates import check_gates, require_gates
from attar.recipe.keys import Fingerprints
from attar.recipe.load import parse_recipe, read_text
from attar.recipe.lock import run_lock
from attar.recipe.saved import save_recipe
from attar.recipe.schema import Recipe
from attar.recipe.signals import stop_requests
from attar.recipe.steps import STEPS, StepKind
from attar.recipe.summary import RunSummary

CRASH_FILE = "crash.txt"


def run_recipe(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    quiet: bool = False,
    enforce_gates: bool = True,
) -> RunSummary:
    """Run a recipe file.

    Args:
        path: the TOML file; relative paths in it start at its folder.
        overrides: `dotted.path=value`, as with `--set`.
        out: folder for runs; the run's folder is `<out>/<name>`. None: `runs` in the current
            folder. quiet: no progress. enforce_gates: a missed gate raises; otherwise it is only in
            the summary.
    Raises:
        AttarError: whatever a user can mend; see `attar.errors`.
    """
    path = Path(path)
    text = read_text(path)
    recipe = parse_recipe(text, overrides, path=path)
    folder = Path("runs" if out is None else out) / recipe.name
    save = {"text": text, "overrides": tuple(overrides), "path": path.resolve()}
    return run_resolved(
        recipe,
        path.resolve().parent,
        folder,
        progress=Progress(quiet=quiet),
        source=save,
        enforce_gates=enforce_gates,
    )


def run_resolved(
    recipe: Recipe,
    recipe_folder: Path,
    folder: Path,
    *,
    progress: Progress | None = None,
    source: Mapping[str, Any] | None = None,
    enforce_gates: bool = True,
    kinds: Mapping[str, StepKind] = STEPS,
    fingerprints: Fingerprints | None = None,
) -> RunSummary:
    """Run a checked recipe in `folder`, from a file or built in memory."""
    progress = progress or Progress()
    with disk_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    with run_lock(folder), stop_requests(progress.say) as should_stop:
        try:
            save_recipe(folder, recipe, recipe_folder, source)
            engine = Engine(recipe, recipe_folder, folder, progress, should_stop, kinds)
            engine.prepare(fingerprints)
            steps = engine.run()
            gates = check_gates(recipe.gates, {s.name: s.metrics for s in steps}, folder)
        except StoppedError as error:
            raise StoppedError(
                f"stopped, everything is saved ({error}); go on with: attar resume {folder}"
            ) from None
        except (AttarError, KeyboardInterrupt):
            raise
        except Exception:
            (folder / CRASH_FILE).write_text(traceback.format_exc(), encoding="utf-8")
            raise
    if enforce_gates:
        require_gates(gates)
    return RunSummary(recipe.name, folder, tuple(steps), tuple(gates))
