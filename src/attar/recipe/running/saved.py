"""The recipe saved in a run folder, so that `resume` and `status` need only the folder.

`recipe.json` has the checked recipe with its overrides, the base of relative paths, and the key of
each step; `recipe.toml` is a copy of the original text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attar.artifacts import read_json, write_json, write_text
from attar.errors import ArtifactError, AttarError, UsageError
from attar.recipe.checking.old_spellings import renew
from attar.recipe.graph import find_cycle, inputs_of
from attar.recipe.load import read_text
from attar.recipe.outcome.sweep import check_sweep
from attar.recipe.schema import Recipe
from attar.recipe.steps import as_table, kind_of, makes_rows

RECIPE_JSON = "recipe.json"
RECIPE_TOML = "recipe.toml"


@dataclass(frozen=True)
class Source:
    """Origin of a recipe."""

    recipe_folder: Path
    """Base folder of relative paths in the recipe."""
    path: Path | None = None
    """The recipe file; None: built in memory."""
    text: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Saved:
    """The content of `recipe.json`."""

    recipe: Recipe
    source: Source
    keys: Mapping[str, str] = field(default_factory=dict[str, str])
    """Step → key, including copies of a sweep; empty until keys are computed."""
    made_from: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """Step → hashed content of its key; empty in folders of earlier versions."""


def save(folder: Path, saved: Saved) -> None:
    """Write both files, each atomically."""
    source = saved.source
    content = {
        "recipe": as_table(saved.recipe),
        "recipe_folder": str(source.recipe_folder),
        "path": None if source.path is None else str(source.path),
        "text": source.text,
        "overrides": list(source.overrides),
        "keys": dict(saved.keys),
        "made_from": dict(saved.made_from),
    }
    write_json(folder / RECIPE_JSON, content)
    if source.text is not None:
        write_text(folder / RECIPE_TOML, source.text)


def read_saved(folder: Path) -> Saved:
    """Read the saved recipe of a run folder.

    Raises:
        UsageError: the folder is not a run folder.
        ArtifactError: the file is damaged, or was written by an incompatible version.
    """
    file = folder / RECIPE_JSON
    if not file.is_file():
        raise UsageError(
            f"{folder} is not the folder of a run (no {RECIPE_JSON}); name runs/<recipe's name>"
        )
    content: Any = read_json(file)
    try:
        renew(content["recipe"])
        recipe = Recipe.model_validate_json(json.dumps(content["recipe"]), strict=True)
        path, text = content["path"], content["text"]
        source = Source(
            recipe_folder=Path(content["recipe_folder"]),
            path=None if path is None else Path(path),
            text=text,
            overrides=tuple(content["overrides"]),
        )
        _require_sound(recipe)
        made_from = {name: dict(made) for name, made in content.get("made_from", {}).items()}
        return Saved(recipe, source, dict(content["keys"]), made_from)
    except (AttributeError, KeyError, TypeError, ValueError, ValidationError) as error:
        problem = str(error).splitlines()[0]
        raise ArtifactError(
            f"{file} does not fit this version of attar ({problem}); "
            "start again from the recipe with: attar run RECIPE.toml"
        ) from None


def _require_sound(recipe: Recipe) -> None:
    """Check properties that a damaged recipe may violate: no cycles, and all references exist."""
    problems = [mistake.text for mistake in check_sweep(recipe)]
    if circle := find_cycle(inputs_of(recipe.steps)):
        problems.append(f"the steps form a cycle: {' → '.join(circle)}")
    for name, step in recipe.steps.items():
        kind = kind_of(step)
        unknown = [
            reference.word
            for reference in kind.data_in(step)
            if reference.word not in recipe.data and not makes_rows(reference.word, recipe.steps)
        ]
        problems += [f"step {name!r} names {word!r}, which is not there" for word in unknown]
    if problems:
        raise ValueError("; ".join(problems))


def changed_since(source: Source) -> bool:
    """Whether the recipe file has changed since the run started, or is missing."""
    if source.path is None or source.text is None:
        return False
    try:
        return read_text(source.path) != source.text
    except AttarError:
        return True
