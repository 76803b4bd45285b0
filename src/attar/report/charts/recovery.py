"""Validation losses of several methods while they train, against FLOPs and against tokens, with
their bands, and where each crosses the first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attar.report.charts.curves import line_colour
from attar.report.charts.extrapolation import bands_svg, heights_with_air
from attar.report.charts.pictures import CURVE_SHAPES, Key, Picture, drawn_twice
from attar.report.charts.svg import Shape
from attar.report.quantities import metric_text
from attar.report.sections.recovery import Measured, Recovery


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
        partial(_drawn, found, x_title, x_of),
        CURVE_SHAPES,
        keys=tuple(keys),
        note=f"Points: evaluations. Area: 95 % interval {found.interval}.",
    )


def _drawn(
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
