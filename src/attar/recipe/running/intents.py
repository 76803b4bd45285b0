"""Determines what a run does with each step of its recipe, and what has changed.

    reuse     an artifact with the step's key exists, or was replaced earlier and is still kept
    replace   an artifact with another key exists
    make      there is no artifact

`attar plan` and `attar run` print the same lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attar.artifacts import RESULT_FILE, read_result
from attar.errors import ArtifactError
from attar.progress import aligned
from attar.recipe.keys import Fingerprints, Keyed, keys_of, room_fingerprints
from attar.recipe.running.changes import changes_of
from attar.recipe.running.known_hashes import KnownHashes
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS, StepKind

Action = Literal["reuse", "make", "replace"]
REPLACED = ".replaced"
"""Folder of replaced artifacts, until the run has succeeded."""
KEPT = ".kept"
"""Folder of replaced artifacts that are kept permanently with `--keep-replaced`."""


@dataclass(frozen=True)
class Intent:
    step: str
    action: Action
    folder: Path
    """Folder of the reused artifact, or of the new one."""
    changes: tuple[str, ...] = ()
    """For a step that is replaced, the differences: "learning_rate 0.0001 → 0.0003"."""


def resting_places(folder: Path, name: str, key: str) -> tuple[Path, ...]:
    """Folders of replaced artifacts of a step, from which a run restores them."""
    return tuple(folder / place / f"{name}-{key}" for place in (REPLACED, KEPT))


def intents_in(
    folder: Path,
    recipe: Recipe,
    recipe_folder: Path,
    *,
    kinds: Mapping[str, StepKind] = STEPS,
    fingerprints: Fingerprints | None = None,
) -> tuple[Intent, ...]:
    """What a run of a checked recipe in `folder` would do with each step, in order. Artifacts are
    not verified; a run does that.

    Args:
        recipe: with the sweep expanded.
        recipe_folder: base folder of relative paths.
    Raises:
        AttarError: data or a model outside the recipe does not exist or cannot be read.
    """
    places = (folder, folder / REPLACED, folder / KEPT)
    if not any(file for place in places for file in place.glob(f"*/{RESULT_FILE}")):
        return tuple(Intent(name, "make", folder / name) for name in recipe.order)
    prints = fingerprints or room_fingerprints(KnownHashes(folder).sha256)
    keyed = keys_of(recipe, recipe.order, recipe_folder, kinds=kinds, fingerprints=prints)
    return tuple(_intent(folder, recipe, name, keyed[name], kinds) for name in recipe.order)


def _intent(
    folder: Path, recipe: Recipe, name: str, wanted: Keyed, kinds: Mapping[str, StepKind]
) -> Intent:
    for place in resting_places(folder, name, wanted.key):
        if (place / RESULT_FILE).is_file():
            return Intent(name, "reuse", place)
    if not (folder / name / RESULT_FILE).is_file():
        return Intent(name, "make", folder / name)
    try:
        found = read_result(folder / name)
    except ArtifactError as damaged:
        return Intent(name, "replace", folder / name, (str(damaged),))
    if found.key == wanted.key:
        return Intent(name, "reuse", folder / name)
    changes = changes_of(recipe, name, found.made_from, wanted.made_from, kinds)
    return Intent(name, "replace", folder / name, tuple(changes))


def intent_lines(intents: Sequence[Intent]) -> list[str]:
    """One line per step; empty if all steps run for the first time.

    Example:
        >>> changed = Intent("student", "replace", Path(), ("learning_rate 0.0001 → 0.0003",))
        >>> print(*intent_lines([Intent("teacher", "reuse", Path()), changed]), sep="\\n")
        teacher  reuse
        student  replace  learning_rate 0.0001 → 0.0003
    """
    if all(intent.action == "make" for intent in intents):
        return []
    rows = [(intent.step, intent.action, "; ".join(intent.changes)) for intent in intents]
    return aligned(rows, names=3)


def reused(intents: Iterable[Intent]) -> dict[str, Path]:
    """Step → reused artifact."""
    return {intent.step: intent.folder for intent in intents if intent.action == "reuse"}
