"""Training curves: a loss or metric against optimizer steps, one colour per line, with the running
mean in front of the raw values.

Lines are named in a legend, not at their ends, because the ends of several runs coincide.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from attar.report.charts.svg import Shape, alt, coloured, drawn_of, svg_of
from attar.report.charts.ticks import ticked, upright
from attar.report.quantities import SHOWN_AS_PERCENT
from attar.report.sections.training import Curve

LINE_COLOURS = tuple(f"var(--line-{number})" for number in range(1, 7))
MARKED_UP_TO = 24
"""A curve with at most this many points shows each of them."""


def line_colour(place: int) -> str:
    """Colour of the line with this index; colours repeat after the last one."""
    return LINE_COLOURS[place % len(LINE_COLOURS)]


def curves_svg(
    curves: Sequence[Curve],
    title: str,
    shape: Shape,
    label: str,
    behind: Sequence[Curve] = (),
    metric: str = "",
    x_title: str = "optimizer step",
) -> str:
    """The picture as inline SVG.

    Args:
        behind: the same lines before smoothing, drawn faint.
        metric: its name decides whether the axis reads in percent.
    """
    low, high = height_range([*curves, *behind])
    is_share = metric in SHOWN_AS_PERCENT
    ticks = ticked(low, high, 5, metric, is_share=is_share)
    shape = ticks.fitted(shape)
    last = max(x for curve in curves for x, _ in curve.points)
    first = min(x for curve in curves for x, _ in curve.points)
    x = alt.X(
        "x:Q",
        scale=alt.Scale(domain=[min(first, 0), max(last, first + 1)], nice=False),
        axis=alt.Axis(title=x_title, tickCount=5, grid=False, labelFlush=False),
    )
    y = upright("y", (low, high), f"{title}, %" if is_share else title, ticks, shape)
    drawn = partial(_lines, x=x, y=y, num_lines=len(curves))  # one scale of colours for all layers
    layers = [drawn(behind, opacity=0.25, width=1.0)] if behind else []
    layers.append(drawn(curves, opacity=1.0, width=2.0))
    if any(len(curve.points) <= MARKED_UP_TO for curve in curves):
        layers.append(drawn(curves, opacity=1.0, width=2.0, is_marked=True))
    return svg_of(layers, shape, label)


def height_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Range of the value axis: all values with a margin, but not below zero for non-negative
    values."""
    heights = [y for curve in curves for _, y in curve.points]
    air = 0.06 * (max(heights) - min(heights)) or 0.05 * abs(heights[0]) or 0.05
    floor = 0.0 if min(heights) >= 0 else -float("inf")
    return max(min(heights) - air, floor), max(heights) + air


def _lines(
    curves: Sequence[Curve],
    *,
    x: Any,
    y: Any,
    num_lines: int,
    opacity: float,
    width: float,
    is_marked: bool = False,
) -> Any:
    rows = [
        {"x": step, "y": height, "line": str(number), "failed": curve.is_failed}
        for number, curve in enumerate(curves)
        if not is_marked or len(curve.points) <= MARKED_UP_TO
        for step, height in curve.points
    ]
    names = [str(number) for number in range(num_lines)]
    colours = [line_colour(number) for number in range(num_lines)]
    colour = coloured("line", names, colours)
    chart = drawn_of(rows)
    mark = (
        chart.mark_point(filled=True, size=36, opacity=1, aria=False)
        if is_marked
        else chart.mark_line(opacity=opacity, strokeWidth=width, strokeJoin="round", aria=False)
    )
    if is_marked or not any(curve.is_failed for curve in curves):
        return mark.encode(x=x, y=y, color=colour)
    scale = alt.Scale(domain=[False, True], range=[[1, 0], [6, 4]])
    dash = alt.StrokeDash("failed:N", scale=scale, legend=None)
    return mark.encode(x=x, y=y, color=colour, strokeDash=dash)
