"""Scatter plot of quality against cost: a labelled point per model, with its 95 % interval and a
thin line from its parent.

The cost axis starts at zero, so that half the cost looks like half; if costs span more than a
factor of 30, it is logarithmic, which is noted in its title. The quality axis is fitted to the
intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.charts.labels import Anchor, Box, Placed, place_labels, shortened
from attar.report.charts.svg import FONT_PX, Shape, alt, drawn_of, svg_of
from attar.report.charts.ticks import ticked, upright
from attar.report.quantities import SHOWN_AS_PERCENT, text_with_interval, unit_text

LOG_FROM_RATIO = 30
"""Costs that differ by more than this are crowded at the left end of a linear axis."""
LABEL_ROOM_PX = 74
"""Kept free to the right of the costliest model: its name is read there first."""
MARK_PX = 7
"""Half the side of the box kept free around a point."""
FORM_LOOKS = {
    "float": ("circle", "var(--float)"),
    "simulated": ("diamond", "var(--simulated)"),
    "openvino": ("square", "var(--openvino)"),
    "onnxruntime": ("triangle-up", "var(--onnxruntime)"),
}
PLAIN_LOOK = ("circle", "var(--ink)")


@dataclass(frozen=True)
class Point:
    """One model in a picture."""

    name: str
    form: str
    cost: float
    quality: float
    low: float | None
    high: float | None
    parent: str = ""
    is_run: bool = False
    """One run of a sweep: drawn faint, without a label."""


@dataclass(frozen=True)
class Axis:
    """A cost axis in data units."""

    low: float
    high: float
    is_log: bool

    def place(self, value: float) -> float:
        """0..1 along the axis."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def value_at(self, place: float) -> float:
        """The cost at a place along the axis: `place` undone."""
        if self.is_log:
            return self.low * (self.high / self.low) ** place
        return self.low + place * (self.high - self.low)


def scatter_svg(
    points: Sequence[Point], metric: str, title: str, unit: str, shape: Shape, label: str
) -> str:
    quality = quality_range(points)
    ticks = ticked(*quality, 6, metric, is_share=metric in SHOWN_AS_PERCENT)
    shape = ticks.fitted(shape)
    frame = Frame(cost_axis(points, shape), quality, shape)
    title = f"{title}, {unit}{' (logarithmic)' if frame.cost.is_log else ''}"
    x = alt.X(
        "cost:Q",
        scale=alt.Scale(
            domain=[frame.cost.low, frame.cost.high],
            nice=False,
            type="log" if frame.cost.is_log else "linear",
        ),
        axis=alt.Axis(title=title, tickCount=6, titlePadding=8, labelFlush=False),
    )
    named = f"{metric}, %" if metric in SHOWN_AS_PERCENT else metric
    y = upright("quality", frame.quality, named, ticks, shape)
    layers = [
        *_lineage_layer(points, x, y),
        _bars(points, x, y),
        _marks(points, metric, unit, x, y),
        *_label_layers(points, frame, x, y),
    ]
    return svg_of(layers, shape, label)


@dataclass(frozen=True)
class Frame:
    """Both axes and the plot they fill: from data to pixels and back."""

    cost: Axis
    quality: tuple[float, float]
    shape: Shape

    def pixels(self, cost: float, quality: float) -> tuple[float, float]:
        low, high = self.quality
        return (
            self.cost.place(cost) * self.shape.plot_width,
            (high - quality) / (high - low) * self.shape.plot_height,
        )

    def row(self, x: float, y: float, suffix: str = "") -> dict[str, float]:
        """A pixel as the data that lands there."""
        low, high = self.quality
        return {
            f"cost{suffix}": self.cost.value_at(x / self.shape.plot_width),
            f"quality{suffix}": high - y / self.shape.plot_height * (high - low),
        }


def cost_axis(points: Sequence[Point], shape: Shape) -> Axis:
    """From zero with room on the right for labels; logarithmic when the costs span far."""
    costs = [point.cost for point in points]
    if min(costs) > 0 and max(costs) / min(costs) > LOG_FROM_RATIO:
        return Axis(min(costs) / 1.6, max(costs) * 1.6, True)
    room = shape.plot_width / (shape.plot_width - LABEL_ROOM_PX)
    return Axis(0.0, max(costs) * room or 1.0, False)


def quality_range(points: Sequence[Point]) -> tuple[float, float]:
    """The intervals with a tenth of air above and below."""
    ends = [
        end for point in points for end in (point.quality, point.low, point.high) if end is not None
    ]
    air = 0.12 * (max(ends) - min(ends)) or 0.05 * abs(ends[0]) or 0.05
    return min(ends) - air, max(ends) + air


def _rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [
        {
            "cost": point.cost,
            "quality": point.quality,
            "low": point.quality if point.low is None else point.low,
            "high": point.quality if point.high is None else point.high,
            "form": point.form,
        }
        for point in points
    ]


def _lineage_layer(points: Sequence[Point], x: Any, y: Any) -> list[Any]:
    """A dashed line from each model's parent, where both are in the picture."""
    by_name = {point.name: point for point in points if not point.is_run}
    rows = [
        {
            "cost": parent.cost,
            "quality": parent.quality,
            "cost2": child.cost,
            "quality2": child.quality,
        }
        for child in by_name.values()
        if (parent := by_name.get(child.parent)) is not None
    ]
    if not rows:
        return []
    rule = drawn_of(rows).mark_rule(
        aria=False, color="var(--line)", strokeDash=[3, 3], strokeWidth=1.2
    )
    return [rule.encode(x=x, y=y, x2="cost2:Q", y2="quality2:Q")]


def _bars(points: Sequence[Point], x: Any, y: Any) -> Any:
    labelled = [point for point in points if not point.is_run]
    rows = [{**row, "quality": row["low"]} for row in _rows(labelled)]
    rule = drawn_of(rows).mark_rule(aria=False, strokeWidth=1.5, opacity=0.55)
    return rule.encode(x=x, y=y, y2="high:Q", color=_look(1))


def _look(part: int) -> Any:
    """A form's shape (part 0) or colour (part 1) as a scale without a legend; the page has its
    own."""
    forms = list(FORM_LOOKS)
    scale = alt.Scale(domain=forms, range=[FORM_LOOKS[form][part] for form in forms])
    channel = alt.Shape if part == 0 else alt.Color
    return channel("form:N", scale=scale, legend=None)


def _marks(points: Sequence[Point], metric: str, unit: str, x: Any, y: Any) -> Any:
    rows = _rows(points)
    for row, point in zip(rows, points, strict=True):
        quality = text_with_interval(metric, point.quality, point.low, point.high)
        row["said"] = f"{shortened(point.name)}: {quality}, {unit_text(point.cost, unit)}"
        row["opacity"] = 0.35 if point.is_run else 1.0
        row["area"] = 30 if point.is_run else 80
    return (
        drawn_of(rows)
        .mark_point(filled=True)
        .encode(
            x=x,
            y=y,
            shape=_look(0),
            color=_look(1),
            opacity=alt.Opacity("opacity:Q", scale=None),
            size=alt.Size("area:Q", scale=None),
            description="said:N",
        )
    )


def _labels(points: Sequence[Point], frame: Frame) -> list[Placed]:
    anchors = []
    for point in points:
        x, y = frame.pixels(point.cost, point.quality)
        ends = [
            frame.pixels(point.cost, point.quality if end is None else end)[1]
            for end in (point.high, point.low)
        ]
        mark = Box(x - MARK_PX, min(ends[0], y - MARK_PX), x + MARK_PX, max(ends[1], y + MARK_PX))
        anchors.append(Anchor(shortened(point.name), x, y, mark))
    plot = Box(0, 0, frame.shape.plot_width, frame.shape.plot_height)
    return place_labels(anchors, plot, FONT_PX)


def _label_layers(points: Sequence[Point], frame: Frame, x: Any, y: Any) -> list[Any]:
    """Labels, and the lines back to points whose label is far."""
    named = [point for point in points if not point.is_run]
    placed = _labels(named, frame)
    leaders = [
        {
            **frame.row(*frame.pixels(point.cost, point.quality)),
            **frame.row(*label.box.nearest(*frame.pixels(point.cost, point.quality)), suffix="2"),
        }
        for point, label in zip(named, placed, strict=True)
        if label.has_leader
    ]
    layers = []
    if leaders:
        rule = drawn_of(leaders).mark_rule(aria=False, color="var(--muted)", strokeWidth=0.7)
        layers.append(rule.encode(x=x, y=y, x2="cost2:Q", y2="quality2:Q"))
    rows = [
        {**frame.row(label.x, label.y), "name": label.text, "form": point.form}
        for point, label in zip(named, placed, strict=True)
    ]
    text = drawn_of(rows).mark_text(
        aria=False, align="center", baseline="middle", fontSize=FONT_PX, fontWeight=500
    )
    layers.append(text.encode(x=x, y=y, text="name:N", color=_look(1)))
    return layers
