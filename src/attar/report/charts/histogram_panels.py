"""A grid of histograms with common axes.

Rows are depths, columns are one or two models. Magnitudes (horizontal) and counts (vertical) are
logarithmic, so that a few outliers are visible. All panels have the same scales, so they can be
compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from attar.report.charts.labels import shortened, text_width
from attar.report.charts.svg import FONT_PX, Shape, alt, coloured, drawn_of, svg_of
from attar.report.quantities import clipped, number_text

PANEL_PX = 64
GAP = 0.06
"""Of the width, between two columns."""
AIR = 0.34
"""Of a panel's height, above the tallest bar; the largest value is written there."""
DECADE_PX = 32
"""Powers of ten are named no denser than this."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Panel:
    line: int
    column: int
    bins: tuple[tuple[float, float, int], ...]
    """(from, to, count): powers of ten of the magnitude, and how many values lie between."""
    largest: float
    said: str


def panels_svg(
    panels: Sequence[Panel],
    lines: Sequence[str],
    columns: Sequence[str],
    colours: Sequence[str],
    span: tuple[float, float],
    shape: Shape,
    label: str,
) -> str:
    """The picture as inline SVG.

    Args:
        lines, columns: names of depths and of models.
        span: powers of ten of the magnitude where every panel begins and ends.
    """
    left = int(max(text_width(shortened(name), FONT_PX) for name in lines) + 12)
    top = 26 if len(columns) > 1 else 8
    height = top + shape.bottom + PANEL_PX * len(lines)
    shape = replace(shape, left=left, top=top, height=height)
    plane = _Plane(span, len(columns), max(c for p in panels for *_, c in p.bins))
    bars = [
        {
            **{"x": plane.x(panel.column, start), "x2": plane.x(panel.column, end)},
            **{"y": panel.line + 1.0, "y2": panel.line + 1.0 - plane.height(count)},
            **{"column": str(panel.column), "said": f"{panel.said}: {count:,} values"},
        }
        for panel in panels
        for start, end, count in panel.bins
        if end > span[0]
    ]
    y = alt.Y("y:Q", scale=alt.Scale(domain=[len(lines), 0], nice=False), axis=_depths(lines))
    ticks = plane.ticks(shape.plot_width)
    axis = alt.Axis(
        title="magnitude",
        values=list(ticks),
        labelExpr=_chosen(ticks),
        labelAngle=0,
        labelOverlap=False,
        labelFlush=False,
        grid=True,
        domain=False,
    )
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=axis)
    ends = {"x2": "x2:Q", "y2": "y2:Q", "description": alt.Description("said:N")}
    colour = coloured("column", (str(k) for k in range(len(columns))), colours)
    marks = drawn_of(bars).mark_rect(opacity=0.85)
    layers = [
        marks.encode(x=x, y=y, color=colour, **ends),
        _floors(plane, len(lines), len(columns)),
        _texts(_largest(panels, plane), "right", FONT_PX - 1, "var(--muted)"),
    ]
    if len(columns) > 1:
        room = int(plane.width * shape.plot_width / text_width("m", FONT_PX))
        heads = [
            {"x": plane.x(k, span[0]), "y": -10 / PANEL_PX, "text": clipped(name, room)}
            for k, name in enumerate(columns)
        ]
        layers.append(_texts(heads, "left", FONT_PX, "var(--ink)"))
    return svg_of(layers, shape, label)


@dataclass(frozen=True)
class _Plane:
    """Where a magnitude and a count lie in the picture: x from 0 to 1, y in panels."""

    span: tuple[float, float]
    columns: int
    most: int
    """The tallest bar of all panels."""

    @property
    def width(self) -> float:
        return (1 - GAP * (self.columns - 1)) / self.columns

    def x(self, column: int, power: float) -> float:
        low, high = self.span
        share = (min(max(power, low), high) - low) / (high - low)
        return column * (self.width + GAP) + share * self.width

    def height(self, count: int) -> float:
        """A single value is still seen: one stands for a little more than nothing."""
        most = math.log10(self.most) + 0.5
        return (1 - AIR) * (math.log10(count) + 0.5) / most if count else 0.0

    def ticks(self, plot_width: float) -> dict[float, str]:
        """Place → what is written there, for every column."""
        low, high = self.span
        room = plot_width * self.width / (high - low)
        every = max(1, math.ceil(DECADE_PX / room))
        powers = [k for k in range(math.ceil(low), math.floor(high) + 1) if k % every == 0]
        return {self.x(c, k): power_text(k) for c in range(self.columns) for k in powers}


def power_text(power: int) -> str:
    """Example:
    >>> power_text(-3), power_text(0), power_text(2)
    ('10⁻³', '1', '100')
    """
    plain = {-1: "0.1", 0: "1", 1: "10", 2: "100"}
    return plain.get(power, f"10{str(power).translate(SUPERSCRIPTS)}")


def _chosen(names: dict[float, str]) -> str:
    """The Vega expression that writes each tick's name."""
    ends = "''"
    for place, name in names.items():
        ends = f"abs(datum.value - {place}) < 1e-9 ? '{name}' : {ends}"
    return ends


def _depths(lines: Sequence[str]) -> Any:
    return alt.Axis(
        title=None,
        values=[place + 0.72 for place in range(len(lines))],
        labelExpr=f"{[shortened(name) for name in lines]!r}[floor(datum.value)]",
        labelOverlap=False,
        labelLimit=0,
        domain=False,
        ticks=False,
        grid=False,
    )


def _floors(plane: _Plane, lines: int, columns: int) -> Any:
    """The line every panel stands on."""
    rows = [
        {"x": plane.x(c, plane.span[0]), "x2": plane.x(c, plane.span[1]), "y": line + 1.0}
        for line in range(lines)
        for c in range(columns)
    ]
    rule = drawn_of(rows).mark_rule(stroke="var(--line)", aria=False)
    return rule.encode(x="x:Q", x2="x2:Q", y="y:Q")


def _largest(panels: Sequence[Panel], plane: _Plane) -> list[dict[str, Any]]:
    return [
        {
            "x": plane.x(panel.column, plane.span[1]),
            "y": panel.line + 0.22,
            "text": f"max {number_text(panel.largest)}",
        }
        for panel in panels
    ]


def _texts(rows: Sequence[Any], align: str, size: int, colour: str) -> Any:
    mark = drawn_of(rows).mark_text(align=align, fontSize=size, fill=colour, aria=False, clip=False)
    return mark.encode(x="x:Q", y="y:Q", text="text:N")
