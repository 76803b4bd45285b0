"""On which line of a TOML text a dotted place is written.

Python's TOML parser keeps no positions. A second, shallow reading of headers and `name =` lines
finds most of them: the deepest part of the place that is written on a line of its own wins. Text
inside multi-line strings may mislead it, which costs a wrong line number and nothing else.
"""

from __future__ import annotations

import re
import tomllib

HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
ASSIGNMENT = re.compile(
    r"^\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)

Place = tuple[str | int, ...]


def line_of(place: Place, text: str) -> int | None:
    """Line (from 1) of the deepest written ancestor of `place`; None when nothing of it is
    written."""
    best: int | None = None
    best_depth = 0
    header: Place = ()
    counts: dict[Place, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        written: Place | None = None
        if match := HEADER.match(line):
            header = tuple(_parts(match.group(2)))
            if match.group(1) == "[[":
                index = counts.get(header, 0)
                counts[header] = index + 1
                header = (*header, index)
            written = header
        elif match := ASSIGNMENT.match(line):
            written = (*header, *_parts(match.group(1)))
        if written is not None and len(written) > best_depth and place[: len(written)] == written:
            best, best_depth = number, len(written)
    return best


def _parts(dotted: str) -> list[str]:
    """The names of a dotted TOML key, quotes removed."""
    try:
        here: object = tomllib.loads(f"{dotted} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        return [dotted]
    parts: list[str] = []
    while isinstance(here, dict):
        name = str(next(iter(here)))  # pyright: ignore[reportUnknownArgumentType]
        parts.append(name)
        here = here[name]  # pyright: ignore[reportUnknownVariableType]
    return parts
