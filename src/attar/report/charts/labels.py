"""Places labels next to points without overlap.

Several models can be within a few pixels, each with a label and an error bar. Points are labelled
from the most crowded to the least. Candidate positions on rings around a point are scored by what
they cover, and the nearest one that covers no other label is used. Distant labels get a thin line
to their point. Labels only overlap if the picture is full; then the smallest overlap is chosen.

Text widths are estimated (0.62 em per character, 1.05 em for East Asian wide ones), slightly more
than common sans-serif fonts need, so that it works with any font.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from attar.report.quantities import clipped

NARROW_EM, WIDE_EM = 0.62, 1.05
LINE_EM = 1.25
RINGS_PX = (12, 20, 30, 44, 60, 80, 104, 132, 164)
"""Distances tried from the point to the label's near edge."""
DIRECTIONS = 16
LEADER_FROM_PX = 18
"""A label this far from its point gets a line to it."""
MARK_LENGTH = 2
LONGEST_LABEL = 26
"""Characters; a longer name is cut in the picture and given in full in the table."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y growing downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Shared area; 0 when they do not touch."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)

    def is_inside(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True)
class Anchor:
    """A point to be labelled, with the box of its mark and error bar."""

    text: str
    x: float
    y: float
    mark: Box


@dataclass(frozen=True)
class Placed:
    """A label and where it sits; `x`, `y` is the middle of its box."""

    text: str
    box: Box
    has_leader: bool

    @property
    def x(self) -> float:
        return (self.box.left + self.box.right) / 2

    @property
    def y(self) -> float:
        return (self.box.top + self.box.bottom) / 2


def shortened(text: str) -> str:
    """A name that fits a picture: printable characters only, the middle of a long one cut out,
    and quotation marks around a lone punctuation mark, which would look like a speck.

    Example:
        >>> shortened("student"), shortened("x" * 40), shortened(".")
        ('student', 'xxxxxxxxxxxxx…xxxxxxxxxxxx', '“.”')
    """
    plain = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
    plain = " ".join(plain.split())
    if not plain:
        return "?"
    if len(plain) <= MARK_LENGTH and not any(letter.isalnum() for letter in plain):
        return f"“{plain}”"
    return clipped(plain, LONGEST_LABEL)


def text_width(text: str, font_px: float) -> float:
    """Pixels a text takes, on the generous side."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return font_px * (WIDE_EM * wide + NARROW_EM * (len(text) - wide))


def place_labels(anchors: Sequence[Anchor], plot: Box, font_px: float) -> list[Placed]:
    """One label for each anchor, in the order given.

    Args:
        anchors: points in pixels.
        plot: labels stay inside.
        font_px: size of the letters.
    """
    crowded = sorted(range(len(anchors)), key=lambda i: -_crowding(anchors[i], anchors))
    placed: dict[int, Placed] = {}
    for index in crowded:
        others = [label.box for label in placed.values()]
        placed[index] = _best(anchors[index], others, [a.mark for a in anchors], plot, font_px)
    return [placed[index] for index in range(len(anchors))]


def _crowding(anchor: Anchor, anchors: Sequence[Anchor]) -> float:
    return sum(
        1 / (1 + math.hypot(anchor.x - other.x, anchor.y - other.y))
        for other in anchors
        if other is not anchor
    )


def _best(
    anchor: Anchor, labels: Sequence[Box], marks: Sequence[Box], plot: Box, font_px: float
) -> Placed:
    width, height = text_width(anchor.text, font_px), font_px * LINE_EM
    best: tuple[tuple[float, float], Placed] | None = None
    for ring in RINGS_PX:
        for turn in range(DIRECTIONS):
            box = _box_at(anchor, ring, turn, width, height, plot)
            covered = sum(box.overlap(label) for label in labels)
            touched = sum(box.overlap(mark) for mark in marks)
            candidate = Placed(anchor.text, box, ring >= LEADER_FROM_PX)
            cost = (covered, touched + ring + _dislike(turn))
            if best is None or cost < best[0]:
                best = (cost, candidate)
    if best is None:
        raise AssertionError("there is at least one ring and one direction")
    return best[1]


def _dislike(turn: int) -> float:
    """In pixels: right is best, then left, then above and below, slanted last."""
    return {0: 0.0, DIRECTIONS // 2: 2.0, DIRECTIONS // 4: 4.0, 3 * DIRECTIONS // 4: 4.0}.get(
        turn, 5.0
    )


def _box_at(anchor: Anchor, ring: float, turn: int, width: float, height: float, plot: Box) -> Box:
    """The label's box whose near edge lies `ring` pixels from the point in one of the directions,
    pushed into the plot."""
    angle = 2 * math.pi * turn / DIRECTIONS
    reach_x, reach_y = math.cos(angle), -math.sin(angle)
    x = anchor.x + reach_x * ring + (width / 2) * _towards(reach_x)
    y = anchor.y + reach_y * ring + (height / 2) * _towards(reach_y)
    x = min(max(x, plot.left + width / 2), max(plot.right - width / 2, plot.left + width / 2))
    y = min(max(y, plot.top + height / 2), max(plot.bottom - height / 2, plot.top + height / 2))
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _towards(component: float) -> float:
    """−1, 0 or 1: to which side of the point the label's middle is shifted by half its size."""
    return 0.0 if abs(component) < 0.3 else math.copysign(1.0, component)
