"""`--set steps.student.epochs=1`: changes a recipe without editing it.

The part after `=` is a TOML value; a plain word needs no quotes. The path must refer to a table of
the recipe: an unknown step is a mistake (with a similar name as a hint), while new settings within
a step are validated by the schema.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from attar.errors import did_you_mean
from attar.recipe.checking.mistakes import Mistake

NAMED_TABLES = ("data", "steps")
"""Tables with user-defined entries; an override cannot create a new entry, which may be a typo."""
TABLES = (*NAMED_TABLES, "sweep")
PLAIN_WORD = re.compile(r"[^\s\"'\[\]{}=#,][^\"'\[\]{}=#\n]*")


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> list[Mistake]:
    """Change `content` in place; returns the overrides that cannot be applied."""
    mistakes: list[Mistake] = []
    for text in overrides:
        path, equals, value_text = text.partition("=")
        parts = tuple(part.strip() for part in path.split("."))
        problem = None
        if not equals or not all(parts):
            problem = "does not have the form dotted.path=value"
        else:
            value, problem = _parsed(value_text.strip())
            problem = problem or _set(content, parts, value)
        if problem:
            mistakes.append(Mistake((f"--set {text}",), problem))
    return mistakes


def _parsed(text: str) -> tuple[Any, str | None]:
    """The TOML value, and an error message if it is invalid."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        if PLAIN_WORD.fullmatch(text):
            return text, None
        return None, f"{text!r} is not a TOML value ({type(error).__name__}: {str(error)[:80]})"
    if set(parsed) != {"value"}:
        return None, f"{text!r} is more than one value"
    return parsed["value"], None


def _set(content: dict[str, Any], parts: tuple[str, ...], value: Any) -> str | None:
    """Set the value; returns an error message if that is not possible."""
    here: Any = content
    for depth, part in enumerate(parts):
        is_last = depth == len(parts) - 1
        if isinstance(here, list):
            items = cast("list[Any]", here)
            if not part.isdecimal() or int(part) >= len(items):
                return f"{part!r} is not a position in a list of {len(items)}; count from 0"
            if is_last:
                items[int(part)] = value
            here = items[int(part)]
            continue
        if not isinstance(here, dict):
            return f"{'.'.join(parts[:depth])} is not a table, so it has no {part!r}"
        table = cast("dict[str, Any]", here)
        if is_last:
            table[part] = value
        elif part not in table:
            problem = _invented(table, parts, depth)
            if problem:
                return problem
            table[part] = {}
        here = table[part]
    return None


def _invented(table: Mapping[str, Any], parts: tuple[str, ...], depth: int) -> str | None:
    """Why a missing table on the path to a setting cannot be created."""
    part, known = parts[depth], list(table)
    if depth == 0 and part not in TABLES:
        return f"the recipe has no {part!r}{did_you_mean(part, [*known, *TABLES])}"
    if depth == 1 and parts[0] in NAMED_TABLES:
        has = f"it has {', '.join(known)}" if known else "it has none"
        return f"{parts[0]} has no {part!r}{did_you_mean(part, known)}; {has}"
    return None
