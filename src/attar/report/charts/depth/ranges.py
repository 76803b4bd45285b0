"""Where many numbers lie, one line a place: all of them a thin line, the middle ones a thick one,
and the few that stand out a dot each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attar.extras import require
from attar.report.charts.bars import fitted, unique
from attar.report.charts.svg import (
    Shape,
    drawn_of,
    dressed,
    fitted_scale,
    name_axis,
    svg_of,
    value_axis,
)

AIR = 0.07


@dataclass(frozen=True)
class Extent:
    """One line."""

    name: str
    low: float
    high: float
    middle: tuple[float, float]
    """Mean ± 3 standard deviations."""
    dots: tuple[tuple[float, str], ...]
    """(value, what is said of it)."""


def ranges_svg(
    lines: Sequence[Extent], colours: tuple[str, str], title: str, shape: Shape, label: str
) -> str:
    """The picture as inline SVG.

    Args:
        colours: of the lines, and of the dots.
    """
    alt = require("altair", "report")
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
    scale, axis, y = fitted_scale(ends, AIR), value_axis(title), name_axis(names)
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
    return svg_of(dressed(alt.layer(*layers), shape), label)
