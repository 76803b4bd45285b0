"""Texts that a program has broken: HTML entities, and characters read in the wrong encoding.

A model learns such texts as they are, and then meets others in use. attar changes no text: it
counts the rows and shows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

FEWEST = 0.001
"""Smaller shares of the rows are not reported."""
LONGEST = 10_000
"""Characters; longer texts are documents, which may quote HTML."""
AROUND = 20
"""Number of characters to show on each side of what was found."""
LATER_BYTE = (
    "[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013-\u203a\u20ac\u2122]"
)
"""A byte of a UTF-8 character after the first, read as Latin-1 or Windows-1252."""


@dataclass(frozen=True)
class Fault:
    name: str
    sign: re.Pattern[str]
    advice: str


NAMES = "amp|lt|gt|quot|apos|nbsp|[lr][sd]quo|[mn]dash|hellip"
FAULTS = (
    Fault(
        "HTML entities",
        re.compile(rf"&(?:{NAMES}|#x?[0-9a-f]{{2,6}});", re.IGNORECASE),
        "decode them (html.unescape in Python)",
    ),
    Fault(
        "HTML entities that lost their &",
        re.compile(rf"(?<![\w&])(?:{NAMES}|#\d{{2,4}});"),
        "write &#39; for #39; and decode them (html.unescape in Python)",
    ),
    Fault(
        "characters of a wrong encoding",
        re.compile(f"[ÂÃ]{LATER_BYTE}|â[\u20ac\u0080]|ð[\u0178\u009f]|ï»¿|\ufffd"),
        "save the file again as UTF-8, from the program that it comes from",
    ),
)


@dataclass
class BrokenTexts:
    """Counts the rows with each fault."""

    rows: int = 0
    counts: dict[Fault, int] = field(default_factory=dict[Fault, int])
    examples: dict[Fault, str] = field(default_factory=dict[Fault, str])

    def add(self, texts: tuple[str, ...]) -> None:
        self.rows += 1
        # most texts fail this test, which is much faster than the patterns
        odd = [t for t in texts if (";" in t or not t.isascii()) and len(t) <= LONGEST]
        for fault in FAULTS if odd else ():
            found = next(filter(None, map(fault.sign.search, odd)), None)
            if found is not None:
                self.counts[fault] = self.counts.get(fault, 0) + 1
                around = found.string[max(found.start() - AROUND, 0) : found.end() + AROUND]
                self.examples.setdefault(fault, around)

    def notes(self) -> Iterator[str]:
        for fault, count in self.counts.items():
            if count >= FEWEST * self.rows:
                yield (
                    f"texts with {fault.name}: {count:,} of {self.rows:,}, such as "
                    f"{self.examples[fault]!r}; they are used as they are; if the texts to predict "
                    f"have none, {fault.advice}"
                )
