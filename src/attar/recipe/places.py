"""On which line of a TOML text a dotted place is written.

Python's TOML parser keeps no positions. A second, shallow reading of headers and `name =` lines
finds most of them; a place that has no line of its own gets that of the nearest one around it. Text
inside multi-line strings may mislead it, which costs a wrong line number and nothing else.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

from attar.recipe.mistakes import Place

NAME = r"(?:[A-Za-z0-9_-]+|\"[^\"\n]*\"|'[^'\n]*')"
DOTTED = rf"({NAME}(?:[ \t]*\.[ \t]*{NAME})*)"
HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*{DOTTED}[ \t]*\]")
ASSIGNMENT = re.compile(rf"[ \t]*{DOTTED}[ \t]*=")


def written_places(text: str) -> dict[Place, int]:
    """Place → line (from 1) where it is written first."""
    lines: dict[Place, int] = {}
    header: Place = ()
    counts: dict[Place, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if match := HEADER.match(line):
            header = _parts(match.group(2))
            if match.group(1) == "[[":
                index = counts.get(header, 0)
                counts[header] = index + 1
                header = (*header, index)
            lines.setdefault(header, number)
        elif match := ASSIGNMENT.match(line):
            lines.setdefault((*header, *_parts(match.group(1))), number)
    return lines


def line_of(place: Place, lines: Mapping[Place, int]) -> int | None:
    """The line of `place`, or of the nearest table or setting around it; None when there is none.

    Example:
        >>> lines = written_places("[steps.a]\\nmodel = { form = 'b' }")
        >>> line_of(("steps", "a", "model", "form"), lines)
        2
    """
    while place:
        if place in lines:
            return lines[place]
        place = place[:-1]
    return None


def _parts(dotted: str) -> Place:
    """The names of a dotted TOML key, quotes removed."""
    try:
        here: object = tomllib.loads(f"{dotted} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        return (dotted,)
    parts: list[str] = []
    while isinstance(here, dict):
        [(name, here)] = here.items()  # pyright: ignore[reportUnknownVariableType]
        parts.append(str(name))  # pyright: ignore[reportUnknownArgumentType]
    return tuple(parts)
