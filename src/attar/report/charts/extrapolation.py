"""Losses with 95 % bands on a logarithmic axis: fitted power laws, and training losses of several
methods against FLOPs and tokens, with crossings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attar.report.charts.curves import line_colour
from attar.report.charts.pictures import CURVE_SHAPES, Key, Picture, drawn_twice
from attar.report.charts.svg import Shape, alt, coloured, drawn_of, svg_of
from attar.report.charts.ticks import ticked, upright
from attar.report.quantities import count_text, metric_text
from attar.report.sections.extrapolation import Extrapolation
from attar.report.sections.recovery import Measured, Recovery

AIR = 0.06
MOST_LABELS = 6
"""Maximum number of labels on the axis of tokens."""


def extrapolation_picture(found: Extrapolation) -> Picture:
    said = "; ".join(
        f"{law.name} {metric_text('nll', law.points[-1][1])} measured at "
        f"{count_text(law.points[-1][0])} tokens"
        + "".join(f", {each.text} at {count_text(each.tokens)}" for each in law.read_offs)
        for law in found.laws
    )
    keys = [Key(law.name, line_colour(place)) for place, law in enumerate(found.laws)]
    return drawn_twice(
        "Validation loss against tokens",
        f"Validation loss against tokens, with fitted power laws: {said}.",
        partial(_drawn, found),
        CURVE_SHAPES,
        keys=tuple(keys[1:] and keys),
        note="Points: measured. Line: A · C^(−α) + L∞. Area: 95 % interval of the fit.",
    )


def _drawn(found: Extrapolation, shape: Shape, label: str) -> str:
    laws = list(enumerate(found.laws))
    points = [{"x": x, "y": y, "line": str(i)} for i, law in laws for x, y in law.points]
    lines = [
        {"x": at.tokens, "y": at.value, "low": at.low, "high": at.high, "line": str(i)}
        for i, law in laws
        for at in law.curve
    ]
    return bands_svg(lines, points, _heights(found), "tokens of training", shape, label)


def bands_svg(
    lines: Sequence[Mapping[str, Any]],
    points: Sequence[Mapping[str, Any]],
    heights: tuple[float, float],
    x_title: str,
    shape: Shape,
    label: str,
) -> str:
    """Losses with their bands on a logarithmic axis, as inline SVG.

    Args:
        lines: points of lines, with `low` and `high`; `line` identifies the line.
        points: points to mark.
        heights: range of the axis; bands are clipped to it.
    """
    low, high = heights
    cut = [{**at, "low": max(at["low"], low), "high": min(at["high"], high)} for at in lines]
    ticks = ticked(low, high, 5, "nll")
    shape = ticks.fitted(shape)
    first, last = min(at["x"] for at in lines), max(at["x"] for at in lines)
    x = alt.X(
        "x:Q",
        scale=alt.Scale(type="log", domain=[first, last], nice=False),
        axis=alt.Axis(title=x_title, grid=False, labelFlush=False, **_powers(first, last)),
    )
    y, bottom = (upright(end, heights, "validation nll", ticks, shape) for end in ("y", "low"))
    names = list(dict.fromkeys(at["line"] for at in lines))
    colour = coloured("line", names, [line_colour(int(name)) for name in names])
    band = drawn_of(cut).mark_area(opacity=0.18, aria=False, clip=True)
    line = drawn_of(cut).mark_line(strokeWidth=2, aria=False, clip=True)
    dots = drawn_of(points).mark_point(filled=True, size=30, opacity=0.9, aria=False)
    layers = [
        band.encode(x=x, y=bottom, y2="high:Q", color=colour),
        line.encode(x=x, y=y, color=colour),
        dots.encode(x=x, y=y, color=colour),
    ]
    return svg_of(layers, shape, label)


def _heights(found: Extrapolation) -> tuple[float, float]:
    """All points and curves; a band that leaves this range twice over is cut off."""
    heights = [y for law in found.laws for _, y in law.points]
    heights += [each.value for law in found.laws for each in law.curve]
    ends = [end for law in found.laws for each in law.curve for end in (each.low, each.high)]
    return heights_with_air(heights, ends)


def heights_with_air(heights: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """What an axis shows of values and the ends of their bands."""
    reach = max(heights) - min(heights) or 0.1
    low = max(min([*heights, *ends]), min(heights) - reach)
    high = min(max([*heights, *ends]), max(heights) + reach)
    air = AIR * (high - low)
    return max(low - air, 0.0), high + air


def _powers(first: float, last: float) -> dict[str, object]:
    """Ticks at powers of ten; within one of them, at round numbers."""
    powers = range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)
    values = [10.0**power for power in powers]
    if len(values) < 2:
        values = ticked(first, last, 4).values
    step = -(-len(values) // MOST_LABELS)
    shown = [float(value) for value in values[::step]]
    said = " : ".join(f"datum.value == {value!r} ? '{count_text(value)}'" for value in shown)
    return {"values": shown, "labelExpr": f"{said} : ''"}


def recovery_pictures(found: Recovery) -> list[Picture]:
    """Against FLOPs, and against tokens."""
    return [
        _picture(found, "FLOPs", "training FLOPs", lambda at: at.flops),
        _picture(found, "tokens", "tokens of training", lambda at: at.tokens),
    ]


def _picture(
    found: Recovery, word: str, x_title: str, x_of: Callable[[Measured], float]
) -> Picture:
    said = "; ".join(
        f"{method.name} {metric_text('nll', method.measured[-1].value)}" for method in found.methods
    )
    keys = [Key(method.name, line_colour(i)) for i, method in enumerate(found.methods)]
    return drawn_twice(
        f"Measured loss against {word}",
        f"Measured validation loss against {word} of training, at the end: {said}. The table says "
        "where they cross.",
        partial(_compared, found, x_title, x_of),
        CURVE_SHAPES,
        keys=tuple(keys),
        note=f"Points: evaluations. Area: 95 % interval {found.interval}.",
    )


def _compared(
    found: Recovery, x_title: str, x_of: Callable[[Measured], float], shape: Shape, label: str
) -> str:
    lines = [
        {"x": x_of(at), "y": at.value, "low": at.low, "high": at.high, "line": str(i)}
        for i, method in enumerate(found.methods)
        for at in method.measured
    ]
    ends = [end for at in lines for end in (at["low"], at["high"])]
    heights = heights_with_air([at["y"] for at in lines], ends)
    return bands_svg(lines, lines, heights, x_title, shape, label)
