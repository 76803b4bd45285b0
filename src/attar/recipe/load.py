"""A recipe file → a checked `Recipe`, or every mistake in it at once.

The steps: read (bounded in size and depth, so that no file can exhaust memory or the stack) → TOML
→ overrides → schema → relations. No torch, no numpy. Python's TOML parser recurses into nested
values, therefore depth is counted before it sees the text.
"""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from attar.errors import RecipeError, UsageError
from attar.recipe.mistakes import Mistake, explain
from attar.recipe.overrides import apply_overrides
from attar.recipe.places import line_of
from attar.recipe.relations import check_relations
from attar.recipe.schema import Recipe

MAX_BYTES = 10 * 2**20
"""A recipe is written by hand; ten MiB of it is a wrong file."""
MAX_DEPTH = 64
"""Nesting of tables and lists; the deepest setting there is lies eight deep."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the TOML file.
        overrides: `dotted.path=value`, applied in order before checking.
    Raises:
        RecipeError: every mistake found, each with its place and line.
        UsageError: there is no such file, or it cannot be a recipe.
    """
    return parse_recipe(read_text(Path(path)), overrides, path=Path(path))


def read_text(path: Path) -> str:
    """The file's text, or why it cannot be a recipe."""
    if path.is_dir():
        found = sorted(file.name for file in path.glob("*.toml"))
        hint = f"; it holds {', '.join(found[:5])}" if found else ""
        raise UsageError(f"{path} is a folder, a recipe is a TOML file{hint}")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(
                f"{path} has {size / 2**20:.1f} MiB, a recipe has at most {MAX_BYTES // 2**20}; "
                "is it the right file?"
            )
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"recipe {path} does not exist{_near_files(path)}") from None
    except OSError as error:
        raise UsageError(f"recipe {path} cannot be read: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RecipeError(
            [
                f"line {line}: byte {error.start} (0x{content[error.start]:02x}) is not UTF-8; "
                "save the file as UTF-8"
            ],
            str(path),
        ) from None


def parse_recipe(
    text: str, overrides: Sequence[str] = (), *, path: Path = Path("recipe.toml")
) -> Recipe:
    """A recipe's text → a checked recipe. `path` says where relative paths start and what messages
    call the source."""
    source = str(path)
    content = _parsed_toml(text, source)
    mistakes = apply_overrides(content, overrides)
    mistakes += _unwritable(content)
    recipe: Recipe | None = None
    if not mistakes:
        try:
            recipe = Recipe.model_validate_json(json.dumps(content), strict=True)
        except ValidationError as error:
            mistakes += explain(error, Recipe)
    mistakes += check_relations(content, path.resolve().parent)
    if mistakes or recipe is None:
        raise RecipeError([_with_place(mistake, text, overrides) for mistake in mistakes], source)
    return recipe


def _parsed_toml(text: str, source: str) -> dict[str, Any]:
    depth, line = deepest_nesting(text)
    if depth > MAX_DEPTH:
        raise RecipeError([f"line {line}: nested more than {MAX_DEPTH} deep"], source)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([f"not TOML: {error}"], source) from None
    except RecursionError:
        raise RecipeError([f"nested more than {MAX_DEPTH} deep"], source) from None


STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"""' r"|'''.*?'''" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'" r"|#[^\n]*",
    re.DOTALL,
)


def deepest_nesting(text: str) -> tuple[int, int]:
    """How deep brackets, or the parts of a dotted name, nest outside strings and comments; and on
    which line that is."""
    depth = deepest = at = 0
    bare = STRING_OR_COMMENT.sub(lambda match: "\n" * match.group().count("\n") + "_", text)
    for number, line in enumerate(bare.split("\n"), start=1):
        dots = line.partition("=")[0].count(".")
        if dots > deepest:
            deepest, at = dots, number
        for character in line:
            if character in "[{":
                depth += 1
                if depth > deepest:
                    deepest, at = depth, number
            elif character in "]}":
                depth = max(depth - 1, 0)
    return deepest, at


def _unwritable(content: Any, place: tuple[str | int, ...] = ()) -> list[Mistake]:
    """TOML's dates and times have no use in a recipe and no word in JSON."""
    if isinstance(content, dict):
        table = cast("dict[str, Any]", content)
        return [m for name, value in table.items() for m in _unwritable(value, (*place, name))]
    if isinstance(content, list):
        items = cast("list[Any]", content)
        return [m for i, value in enumerate(items) for m in _unwritable(value, (*place, i))]
    if isinstance(content, (datetime.date, datetime.time)):
        return [
            Mistake(
                place, f"a date or time ({content}) means nothing here; quote it if it is a name"
            )
        ]
    return []


def _with_place(mistake: Mistake, text: str, overrides: Sequence[str]) -> str:
    dotted = mistake.dotted
    origin = next(
        (
            o
            for o in reversed(overrides)
            if f"{dotted}.".startswith(f"{o.partition('=')[0].strip()}.")
        ),
        None,
    )
    if origin is not None:
        return f"{dotted} (from --set {origin}): {mistake.text}"
    line = line_of(mistake.place, text)
    return f"{dotted}{f' (line {line})' if line else ''}: {mistake.text}"


def _near_files(path: Path) -> str:
    from attar.errors import did_you_mean

    folder = path.parent
    known = [file.name for file in folder.glob("*.toml")] if folder.is_dir() else []
    return did_you_mean(path.name, known)
