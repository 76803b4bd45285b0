"""On which line of a TOML text a dotted place is written.

Python's TOML parser keeps no positions. A second, shallow reading of headers and `name =` lines
finds most of them; a place that has no line of its own gets that of the nearest one around it. Text
inside multi-line strings may mislead it, which costs a wrong line number and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attar.recipe.checking.mistakes import Place

MAX_DEPTH = 64
"""Nesting of tables and lists in a recipe; the deepest setting there is lies eight deep."""
NAME = r"(?:[A-Za-z0-9_-]+|\"[^\"\n]*\"|'[^'\n]*')"
DOTTED = rf"({NAME}(?:[ \t]*\.[ \t]*{NAME}){{0,{MAX_DEPTH}}})"
ONE_NAME = re.compile(NAME)
TOO_DEEP = re.compile(
    rf"^[ \t]*\[{{0,2}}[ \t]*(?:{NAME}[ \t]*\.[ \t]*){{{MAX_DEPTH}}}", re.MULTILINE
)
"""A dotted name deeper than that: the time Python's parser takes grows with the square of it."""
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
    return tuple(
        name[1:-1] if name.startswith(("'", '"')) else name for name in ONE_NAME.findall(dotted)
    )
