"""The pictures of a page. Each is drawn for desktop and for phone, and CSS shows one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from attar.numerics.metric_names import LOWER_IS_BETTER
from attar.report.charts.curves import curves_svg, line_colour
from attar.report.charts.scatter import FORM_LOOKS, PLAIN_LOOK, Point, scatter_svg
from attar.report.charts.svg import NARROW, WIDE, Shape
from attar.report.quantities import metric_text, unit_text
from attar.report.reading import Made
from attar.report.sections.comparison import Comparison, family_name
from attar.report.sections.measured import FORM_WORDS, ModelRow
from attar.report.sections.training import Curve, Training

SHAPES = (WIDE, NARROW)
CURVE_SHAPES = (Shape(width=540, height=250), Shape(width=350, height=230))
"""For a desktop and for a phone."""


@dataclass(frozen=True)
class Key:
    text: str
    colour: str
    shape: str = "line"


@dataclass(frozen=True)
class Picture:
    title: str
    label: str
    """Text alternative of the picture."""
    wide: str
    narrow: str
    keys: tuple[Key, ...] = ()
    note: str = ""


def drawn_twice(
    title: str,
    label: str,
    draw: Callable[..., str],
    shapes: tuple[Shape, Shape] = SHAPES,
    **more: Any,
) -> Picture:
    """Draw a picture in both widths.

    Args:
        draw: takes `shape` and `label`.
        more: `keys` and `note`.
    """
    wide, narrow = (draw(shape=shape, label=label) for shape in shapes)
    return Picture(title, label, wide, narrow, **more)


def line_keys(curves: Sequence[Curve]) -> tuple[Key, ...]:
    return tuple(Key(curve.name, line_colour(number)) for number, curve in enumerate(curves))


def comparison_pictures(comparison: Comparison, made: Sequence[Made]) -> tuple[Picture, ...]:
    """Quality against latency and quality against size, as far as they were measured."""
    timed = next((row.latencies[0] for row in comparison.rows if row.latencies), None)
    batch = f"batch {timed.batch} × {timed.tokens} tokens" if timed else ""
    wanted: list[tuple[str, str, str, Callable[[ModelRow], float | None]]] = [
        (f"latency p50, {batch}", "latency", "ms", lambda row: row.latency_ms),
        ("size on disk", "size", "MiB", lambda row: row.size_mib),
    ]
    pictures = []
    for axis, word, unit, cost_of in wanted:
        points = _points(comparison, made, cost_of)
        if points:
            pictures.append(_scatter(comparison, points, axis, word, unit))
    return tuple(pictures)


def _points(
    comparison: Comparison, made: Sequence[Made], cost_of: Callable[[ModelRow], float | None]
) -> list[Point]:
    parents = {family_name(step.name): family_name(step.parent or "") for step in made}
    swept = {row.name for row in comparison.families if row.runs > 1}
    runs = [row for row in comparison.rows if family_name(row.name) in swept]
    points = []
    for row, is_run in [
        *((row, True) for row in runs),
        *((row, False) for row in comparison.families),
    ]:
        quality, cost = row.qualities.get(comparison.metric), cost_of(row)
        if quality is None or cost is None or cost < 0:
            continue
        points.append(
            Point(
                name=row.name,
                form=row.form,
                cost=cost,
                quality=quality.value,
                low=quality.low,
                high=quality.high,
                parent=parents.get(row.name, ""),
                is_run=is_run,
            )
        )
    return points


def _scatter(
    comparison: Comparison, points: Sequence[Point], axis: str, word: str, unit: str
) -> Picture:
    metric = comparison.metric
    said = "; ".join(
        f"{point.name} {metric_text(metric, point.quality)} at {unit_text(point.cost, unit)}"
        for point in points
        if not point.is_run
    )
    label = f"{metric} against {word}. {said}. The table of all models has every figure."
    forms = dict.fromkeys(point.form for point in points)
    keys = []
    for form in forms:
        shape, colour = FORM_LOOKS.get(form, PLAIN_LOOK)
        keys.append(Key(FORM_WORDS.get(form, form), colour, shape))
    has_runs = any(point.is_run for point in points)
    bars = (
        "95 % intervals; of several runs ± one standard deviation" if has_runs else "95 % intervals"
    )
    side = "down" if metric in LOWER_IS_BETTER else "up"
    faint = " Faint points: single runs." if has_runs else ""
    return drawn_twice(
        f"{metric.capitalize()} against {word}",
        label,
        partial(scatter_svg, points, metric, axis, unit),
        keys=tuple(keys),
        note=f"Bars: {bars}.{faint} Better is {side} and to the left.",
    )


def training_pictures(training: Training) -> tuple[Picture, ...]:
    """The loss, its parts, and each metric of validation."""
    pictures = []
    if any(len(curve.points) > 1 for curve in training.loss) or training.loss[1:]:
        pictures.append(
            _curves(training, "Loss", training.smooth_loss, "loss", behind=training.loss)
        )
    if training.parts:
        pictures.append(_curves(training, "Parts of the loss", training.parts, "loss term"))
    for metric, curves in training.validation.items():
        title = f"validation {metric}"
        pictures.append(_curves(training, title.capitalize(), curves, title, metric=metric))
    return tuple(pictures)


def _curves(
    training: Training,
    title: str,
    curves: Sequence[Curve],
    axis: str,
    behind: Sequence[Curve] = (),
    metric: str = "",
) -> Picture:
    ends = "; ".join(
        f"{curve.name} from {metric_text(metric, curve.points[0][1])} "
        f"to {metric_text(metric, curve.points[-1][1])}"
        for curve in curves
    )
    label = f"{title} of {training.name} over optimizer steps: {ends}."
    draw = partial(curves_svg, curves, axis, behind=behind, metric=metric)
    return drawn_twice(title, label, draw, CURVE_SHAPES, keys=line_keys(curves[1:] and curves))
