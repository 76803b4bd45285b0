"""Loads and checks a recipe file, and reports all mistakes at once.

Read (limited in size and depth, so that no file can exhaust memory or the stack) → TOML →
overrides → schema → relations → sweep. Imports neither torch nor numpy. Types are strict: a number
in quotes is a mistake.
"""

from __future__ import annotations

import datetime
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from attar.artifacts import MIB
from attar.errors import RecipeError, UsageError, did_you_mean
from attar.recipe.checking.corpora import check_corpora, expected_elsewhere
from attar.recipe.checking.extrapolations import check_extrapolations
from attar.recipe.checking.lessons import check_lessons
from attar.recipe.checking.mistakes import (
    MAX_DEPTH,
    MAX_MISTAKES,
    TOO_DEEP,
    Mistake,
    Place,
    explain,
    line_of,
    written_places,
)
from attar.recipe.checking.old_spellings import renew
from attar.recipe.checking.overrides import apply_overrides
from attar.recipe.checking.relations import check_relations
from attar.recipe.checking.selections import check_selections
from attar.recipe.checking.tasks_of_steps import check_tasks
from attar.recipe.outcome.sweep import check_sweep, expand
from attar.recipe.schema import Recipe
from attar.recipe.steps import kind_of

MAX_BYTES = MIB
"""Maximum size of a recipe; a larger file is probably not a recipe."""
NESTED = Mistake((), f"nested more than {MAX_DEPTH} deep")


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the TOML file.
        overrides: `dotted.path=value`, applied in order before checking.
    Raises:
        RecipeError: the recipe has mistakes; the message lists all with place and line.
        UsageError: the file does not exist or cannot be a recipe.
    """
    path = Path(path)
    return parse_recipe(read_text(path), overrides, path=path)


def read_text(path: Path) -> str:
    """Read the text of a recipe file.

    Raises:
        UsageError: the file does not exist, is a folder or a FIFO, or is too large.
        RecipeError: it is not UTF-8.
    """
    if path.is_dir():
        found = sorted(file.name for file in path.glob("*.toml"))
        hint = f"; it holds {', '.join(found[:5])}" if found else ""
        raise UsageError(f"{path} is a folder; a recipe is a TOML file{hint}")
    if path.is_fifo() or path.is_socket():
        raise UsageError(f"{path} is a FIFO or a socket; a recipe is a TOML file")
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
            size = stream.seek(0, 2)
    except FileNotFoundError:
        raise UsageError(f"recipe {path} does not exist{_near_file(path)}") from None
    except OSError as error:
        raise UsageError(f"recipe {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is not a valid file name: {error}") from None
    if len(content) > MAX_BYTES:
        raise UsageError(
            f"{path} has {size / MIB:.1f} MiB, but a recipe has at most {MAX_BYTES // MIB} MiB; is "
            "it the right file?"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = f"line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save it as UTF-8"
        raise RecipeError([problem], str(path)) from None


def parse_recipe(
    text: str, overrides: Sequence[str] = (), *, path: Path = Path("recipe.toml")
) -> Recipe:
    """Parse and check the text of a recipe.

    Args:
        path: base of relative paths, and the name in messages; it does not need to exist.
    Raises:
        RecipeError: the recipe has mistakes; the message lists all.
    """
    source = str(path)
    try:
        if TOO_DEEP.search(text):
            raise RecursionError
        content = tomllib.loads(text)
    except ValueError as error:  # invalid TOML, or an integer with thousands of digits
        raise RecipeError([f"not TOML: {error}"], source) from None
    except RecursionError:
        raise RecipeError([NESTED.text], source) from None
    mistakes = apply_overrides(content, overrides)
    nonsense = without_meaning(content)
    mistakes += nonsense + renew(content)
    recipe = None if mistakes else _validated(content, mistakes)
    if NESTED not in nonsense:
        mistakes += check_relations(content, path.resolve().parent)
    if recipe is not None and not mistakes:
        mistakes += check_sweep(recipe) + check_lessons(recipe) + check_extrapolations(recipe)
        mistakes += check_tasks(recipe)
        mistakes += (
            [] if mistakes else check_selections(expand(recipe).recipe, path.resolve().parent)
        )
    if recipe is None or mistakes:
        raise RecipeError(_sentences(mistakes, text, overrides), source)
    return recipe


def require_data(recipe: Recipe, recipe_folder: Path) -> None:
    """Check that the data of all steps exists and that corpora can be used. The text of a corpus
    with `expect_tokens` may be on another machine; `doubts` has a warning for that.

    Raises:
        DataError, ArtifactError: as the step that reads the data.
        RecipeError: settings do not fit a corpus.
    """
    from attar.data.fingerprint import require_there

    words = (r.word for step in recipe.steps.values() for r in kind_of(step).data_in(step))
    for word in dict.fromkeys(words):
        if word in recipe.data and word not in expected_elsewhere(recipe):
            require_there(recipe.data[word], recipe_folder)
    for step in recipe.steps.values():
        kind_of(step).files_in(step, recipe_folder, sha256=str)  # only checks that the files exist
    if mistakes := check_corpora(recipe, recipe_folder):
        raise RecipeError([f"{'.'.join(map(str, m.place))}: {m.text}" for m in mistakes])


def _validated(content: Mapping[str, Any], mistakes: list[Mistake]) -> Recipe | None:
    """The recipe, or None after adding its mistakes to `mistakes`."""
    try:
        return Recipe.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        mistakes += explain(error, Recipe)
        return None


def without_meaning(content: Any) -> list[Mistake]:
    """Values that TOML allows and a recipe does not: dates, times, nan, infinity; or only `NESTED`
    for excessive nesting."""
    mistakes: list[Mistake] = []
    waiting: list[tuple[Place, Any]] = [((), content)]
    while waiting:
        place, value = waiting.pop()
        if len(place) >= MAX_DEPTH:
            return [NESTED]
        if isinstance(value, dict):
            waiting += [((*place, k), v) for k, v in cast("dict[str, Any]", value).items()]
        elif isinstance(value, list):
            waiting += [((*place, i), v) for i, v in enumerate(cast("list[Any]", value))]
        elif isinstance(value, (datetime.date, datetime.time)):
            mistakes.append(Mistake(place, f"{value} is a date or time; quote it if it is a name"))
        elif isinstance(value, float) and not math.isfinite(value):
            mistakes.append(Mistake(place, f"{value} is not a finite number"))
    return mistakes


def _sentences(mistakes: Sequence[Mistake], text: str, overrides: Sequence[str]) -> list[str]:
    """Mistakes with their place and the line or override that they come from, in order."""
    lines = written_places(text)
    mistakes = sorted(mistakes, key=lambda mistake: line_of(mistake.place, lines) or 0)
    sentences = [_sentence(m, lines, overrides) for m in mistakes[:MAX_MISTAKES]]
    if len(mistakes) > MAX_MISTAKES:
        sentences.append(f"and {len(mistakes) - MAX_MISTAKES:,} more")
    return sentences


def _sentence(mistake: Mistake, lines: Mapping[Place, int], overrides: Sequence[str]) -> str:
    dotted = ".".join(map(str, mistake.place))
    if not dotted or dotted.startswith("--set"):
        return f"{dotted}: {mistake.text}".removeprefix(": ")
    for override in reversed(overrides):
        changed = override.partition("=")[0].strip()
        if f"{dotted}.".startswith(f"{changed}."):
            return f"{dotted} (from --set {override}): {mistake.text}"
    line = line_of(mistake.place, lines)
    return f"{dotted}{f' (line {line})' if line else ''}: {mistake.text}"


def _near_file(path: Path) -> str:
    folder = path.parent
    return did_you_mean(
        path.name, [f.name for f in folder.glob("*.toml")] if folder.is_dir() else []
    )
