"""Horizontal charts with one row per name: bars, dumbbells (before and after), and ranges with
outliers.

The length of a bar is its value, so the axis includes zero. The axes of dumbbells (changes) and
ranges (distributions) are fitted to the values. The height follows from the number of rows and the
left margin from the longest name, so that charts are readable on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from attar.report.charts.labels import shortened, text_width
from attar.report.charts.svg import (
    FONT_PX,
    Shape,
    alt,
    coloured,
    drawn_of,
    fitted_scale,
    name_axis,
    svg_of,
    value_axis,
)

ROW_PX = 22
TOP_PX = 8
"""Top margin; there is no title above the plot."""
LEAST_PLOT_PX = 130
"""Minimum width of the plot; long names are shortened to keep it."""
AIR = 0.06


@dataclass(frozen=True)
class Bar:
    """One row: its name, and one value per series."""

    name: str
    values: tuple[float, ...]
    said: str = ""
    """Tooltip of the mark."""


def fitted(names: Sequence[str], shape: Shape, per_row: int = ROW_PX) -> Shape:
    """A shape with a row for every name, and room for the names on its left."""
    widest = max((text_width(name, FONT_PX) for name in names), default=0)
    left = int(min(widest + 12, shape.width - LEAST_PLOT_PX - shape.right))
    height = TOP_PX + shape.bottom + per_row * max(len(names), 1)
    return replace(shape, left=left, top=TOP_PX, height=height)


def bars_svg(
    rows: Sequence[Bar],
    colours: Sequence[str],
    title: str,
    shape: Shape,
    label: str,
    border: float | None = None,
) -> str:
    """Bars from zero.

    Args:
        colours: one per series.
        border: a value marked by a line across all rows.
    """
    names = unique([row.name for row in rows])
    series = [str(number) for number in range(len(colours))]
    shape = fitted(names, shape, ROW_PX + 10 * (len(colours) - 1))
    data = [
        {"name": name, "series": which, "value": value, "said": f"{row.name}: {row.said}"}
        for name, row in zip(names, rows, strict=True)
        for which, value in zip(series, row.values, strict=True)
    ]
    low = min([0.0, *(value for row in rows for value in row.values)])
    high = max([0.0, border or 0.0, *(value for row in rows for value in row.values)])
    air = AIR * (high - low) or 1.0
    domain = [low - air if low < 0 else 0.0, high + air if high > 0 else 0.0]
    x = alt.X("value:Q", scale=alt.Scale(domain=domain, nice=False), axis=value_axis(title, 4))
    marks = drawn_of(data).mark_bar(opacity=0.85, cornerRadiusEnd=2)
    encoding: dict[str, Any] = {
        "x": x,
        "y": name_axis(names),
        "color": coloured("series", series, colours),
        "description": alt.Description("said:N"),
    }
    if len(colours) > 1:
        encoding["yOffset"] = alt.YOffset("series:N", sort=series)
    layers = [marks.encode(**encoding)]
    if border is not None:
        rule = drawn_of([{"value": border}]).mark_rule(
            stroke="var(--muted)", strokeDash=[4, 3], aria=False
        )
        layers.append(rule.encode(x="value:Q"))
    return svg_of(layers, shape, label)


def dumbbells_svg(
    rows: Sequence[Bar], colours: tuple[str, str], title: str, shape: Shape, label: str
) -> str:
    """Dumbbells: a hollow dot (before) and a filled dot (after), joined by a line in the colour of
    its direction.

    Args:
        rows: two values each.
        colours: for increase and decrease.
    """
    names = unique([row.name for row in rows])
    shape = fitted(names, shape)
    data = [
        {
            "name": name,
            "before": row.values[0],
            "after": row.values[1],
            "way": "up" if row.values[1] >= row.values[0] else "down",
            "said": f"{row.name}: {row.said}",
        }
        for name, row in zip(names, rows, strict=True)
    ]
    values = [value for row in rows for value in row.values]
    scale = fitted_scale(values, AIR)
    colour = coloured("way", ("up", "down"), colours)
    chart, y, axis = drawn_of(data), name_axis(names), value_axis(title, 4)

    def x(field: str) -> Any:
        return alt.X(f"{field}:Q", scale=scale, axis=axis)

    lines = chart.mark_rule(strokeWidth=2.5, opacity=0.7, aria=False)
    before = chart.mark_point(size=44, strokeWidth=1.8, fill="var(--surface)", opacity=1)
    after = chart.mark_point(size=44, filled=True, opacity=1)
    said = alt.Description("said:N")
    layers = [
        lines.encode(x=x("before"), x2="after:Q", y=y, color=colour),
        before.encode(x=x("before"), y=y, stroke=colour, description=said),
        after.encode(x=x("after"), y=y, color=colour, description=said),
    ]
    return svg_of(layers, shape, label)


def unique(names: Sequence[str]) -> list[str]:
    """Shorten names to fit a picture, keeping them distinct.

    Example:
        >>> [name.strip() for name in unique(["a", "a"])], len(set(unique(["a", "a"])))
        (['a', 'a'], 2)
    """
    found: list[str] = []
    for name in map(shortened, names):
        while name in found:
            name += "\u00a0"
        found.append(name)
    return found


RANGE_AIR = 0.07


@dataclass(frozen=True)
class Extent:
    name: str
    low: float
    high: float
    middle: tuple[float, float]
    """Mean ± 3 standard deviations."""
    dots: tuple[tuple[float, str], ...]
    """(value, tooltip)."""


def ranges_svg(
    lines: Sequence[Extent], colours: tuple[str, str], title: str, shape: Shape, label: str
) -> str:
    """The picture as inline SVG.

    Args:
        colours: of the lines, and of the dots.
    """
    names = unique([line.name for line in lines])
    shape = fitted(names, shape)
    rows = [
        {
            **{"name": name, "low": line.low, "high": line.high},
            **{"a": max(line.middle[0], line.low), "b": min(line.middle[1], line.high)},
        }
        for name, line in zip(names, lines, strict=True)
    ]
    dots = [
        {"name": name, "value": value, "said": f"{line.name}, {said}"}
        for name, line in zip(names, lines, strict=True)
        for value, said in line.dots
    ]
    ends = [end for line in lines for end in (line.low, line.high)]
    scale, axis, y = fitted_scale(ends, RANGE_AIR), value_axis(title), name_axis(names)
    chart = drawn_of(rows)

    def lie(first: str, last: str, **look: float) -> object:
        mark = chart.mark_rule(stroke=colours[0], strokeCap="round", aria=False, **look)
        return mark.encode(x=alt.X(f"{first}:Q", scale=scale, axis=axis), x2=f"{last}:Q", y=y)

    mark = drawn_of(dots).mark_point(filled=True, size=30, opacity=1, fill=colours[1])
    marked = mark.encode(
        x=alt.X("value:Q", scale=scale, axis=axis), y=y, description=alt.Description("said:N")
    )
    layers = [
        lie("low", "high", strokeWidth=1.2, opacity=0.8),
        lie("a", "b", strokeWidth=7, opacity=0.35),
        *([marked] if dots else []),
    ]
    return svg_of(layers, shape, label)
