"""Matches different spellings of class names. Imports neither torch nor numpy."""

from __future__ import annotations

import re

BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")
WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?")
"""Labels with more digits, a leading zero, a plus sign, an exponent or separators are treated as
names, because they are probably codes or ids."""


def whole_number(name: str) -> int | None:
    """The integer value of a label; None if it is a name.

    Example:
        >>> whole_number("10"), whole_number("1.0"), whole_number("01"), whole_number("1e3")
        (10, 1, None, None)
    """
    found = WHOLE_NUMBER.fullmatch(name)
    return int(found[1]) if found else None


def plain_name(name: str) -> str:
    """Normalize a name: case, quotes, word separators, and "1.0" for 1."""
    bare = name.strip().strip("\"'").strip()
    number = whole_number(bare)
    return BETWEEN_WORDS.sub(" ", bare).casefold() if number is None else str(number)
