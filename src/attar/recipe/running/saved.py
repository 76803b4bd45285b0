"""What a run folder remembers of its recipe, so that `resume` and `status` need the folder alone.

`recipe.json` holds the checked recipe with its overrides, where relative paths start, and the key
each step is to have; `recipe.toml` is the text it came from, for people.
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
from attar.recipe.steps import kind_of, makes_rows

RECIPE_JSON = "recipe.json"
RECIPE_TOML = "recipe.toml"


@dataclass(frozen=True)
class Source:
    """Where a recipe came from."""

    recipe_folder: Path
    """Relative paths in the recipe start here."""
    path: Path | None = None
    """None: built in memory."""
    text: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Saved:
    """The content of `recipe.json`."""

    recipe: Recipe
    source: Source
    keys: Mapping[str, str] = field(default_factory=dict[str, str])
    """Step → key, copies of a sweep included; empty until they were computed."""
    made_from: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """Step → what its key is a hash of; empty in a folder of an earlier version."""


def save(folder: Path, saved: Saved) -> None:
    """Write both files, each in one replacement."""
    source = saved.source
    content = {
        "recipe": saved.recipe.model_dump(mode="json", by_alias=True),
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
    """What a run folder remembers.

    Raises:
        UsageError: the folder is not that of a run.
        ArtifactError: the file is damaged, or was written by a version that knew other settings.
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
    """What a checked recipe is sure of and a damaged one need not be: nothing goes in a circle, and
    what is named is there."""
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
    """The recipe file says something else now than when the run began (or is gone)."""
    if source.path is None or source.text is None:
        return False
    try:
        return read_text(source.path) != source.text
    except AttarError:
        return True
