"""Error against size or latency of bit-width plans: the Pareto front and the chosen plan.

The error axis is logarithmic, because one bit less is four times the error; the cost axis is fitted
to the plans. A line shows the predicted error (the sum over single tensors); marks show the
measured error of whole plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from attar.report.charts.heatmap import Cell as HeatCell
from attar.report.charts.heatmap import heatmap_svg
from attar.report.charts.pictures import CURVE_SHAPES, Key, Picture, drawn_twice
from attar.report.charts.svg import Shape, alt, drawn_of, flat_title, svg_of
from attar.report.quantities import number_text, unit_text
from attar.report.sections.mixed_precision import Budgeted, Cell, FrontPoint

PREDICTED, MEASURED, UNIFORM, CHOSEN = (
    "var(--muted)",
    "var(--float)",
    "var(--simulated)",
    "var(--bad)",
)
MOST_BITS = 8
FLOAT_STRENGTH = 1.0


def budget_pictures(budget: Budgeted) -> tuple[Picture, ...]:
    """The front, and a map of the bits of each tensor."""
    pictures: list[Picture] = []
    if any(_error_of(point) for point in budget.points):
        pictures.append(_front(budget))
    if budget.cells:
        pictures.append(_map(budget))
    return tuple(pictures)


def _front(budget: Budgeted) -> Picture:
    word, unit, of = (
        ("predicted latency", "ms", "latency_ms")
        if budget.is_of_latency
        else ("size", "MiB", "size_mib")
    )
    cost_of = attrgetter(of)
    said = "; ".join(
        f"{number_text(_error_of(point))} at {unit_text(cost_of(point), unit)}"
        + (", chosen" if point.is_chosen else "")
        for point in budget.points
        if cost_of(point) is not None
    )
    label = f"Output error of {budget.name} against {word}: {said}."
    keys = [
        Key("predicted, tensor by tensor", PREDICTED),
        Key("measured together", MEASURED, "circle"),
        Key("chosen", CHOSEN, "diamond"),
    ]
    if any(not point.is_on_front for point in budget.points):
        keys.insert(2, Key("same bits everywhere", UNIFORM, "square"))
    note = "Predicted: sum of the costs of single tensors. Measured: the whole plan."
    draw = partial(front_svg, budget.points, cost_of, f"{word}, {unit}")
    return drawn_twice(
        f"Error against {word}", label, draw, CURVE_SHAPES, keys=tuple(keys), note=note
    )


def _error_of(point: FrontPoint) -> float | None:
    """Error of a point to draw: measured if available, otherwise predicted; None if it is zero."""
    return point.output_error or point.loss or None


def front_svg(
    points: Sequence[FrontPoint],
    cost_of: Callable[[FrontPoint], float | None],
    title: str,
    shape: Shape,
    label: str,
) -> str:
    x = alt.X(
        "cost:Q",
        scale=alt.Scale(zero=False, padding=14),
        axis=alt.Axis(title=title, tickCount=6, labelFlush=False, grid=False),
    )
    y = alt.Y(
        "error:Q",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(
            title="output error",
            tickCount=5,
            format="~e",
            **flat_title(shape),
        ),
    )

    def rows(wanted: Sequence[tuple[FrontPoint, float | None]]) -> Any:
        return drawn_of(
            {"cost": cost, "error": error, "said": _said(point, cost, error, title)}
            for point, error in wanted
            if error and (cost := cost_of(point)) is not None
        )

    predicted = rows([(point, point.loss) for point in points])
    measured = rows([(p, p.output_error) for p in points if p.is_on_front])
    uniform = rows([(p, p.output_error) for p in points if not p.is_on_front])
    chosen = rows([(p, _error_of(p)) for p in points if p.is_chosen])
    said = alt.Description("said:N")
    layers = [
        predicted.mark_line(color=PREDICTED, strokeWidth=1.5, aria=False).encode(x=x, y=y),
        _marks(predicted, "circle", PREDICTED, 22).encode(x=x, y=y, description=said),
        _marks(measured, "circle", MEASURED, 50).encode(x=x, y=y, description=said),
        _marks(uniform, "square", UNIFORM, 50).encode(x=x, y=y, description=said),
        _marks(chosen, "diamond", CHOSEN, 130).encode(x=x, y=y, description=said),
    ]
    return svg_of(layers, shape, label)


def _marks(chart: Any, shape: str, colour: str, size: int) -> Any:
    return chart.mark_point(shape=shape, filled=True, size=size, opacity=1, color=colour)


def _said(point: FrontPoint, cost: float, error: float, title: str) -> str:
    parts = [f"{title} {number_text(cost)}", f"error {number_text(error)}"]
    parts += [f"{number_text(point.average_bits)} bits"] if point.average_bits else []
    parts += [f"drop {number_text(point.drop)}"] if point.drop is not None else []
    return ", ".join(parts)


def _map(budget: Budgeted) -> Picture:
    roles = list(dict.fromkeys(cell.role for cell in budget.cells))
    blocks = sorted({cell.block for cell in budget.cells})
    cells = [_heat(cell, blocks) for cell in budget.cells]
    said = "; ".join(f"{cell.said}" for cell in cells)
    label = f"Bits of {budget.name} by tensor and block: {said}."
    draw = partial(heatmap_svg, cells, roles, [str(block) for block in blocks], "block")
    note = "Darker: more bits. Framed: left in float. Names that end in a port are activations."
    return drawn_twice("Bits of each tensor", label, draw, CURVE_SHAPES, note=note)


def _heat(cell: Cell, blocks: Sequence[int]) -> HeatCell:
    is_float = cell.bits is None
    word = "float" if is_float else f"{cell.bits} bits"
    strength = FLOAT_STRENGTH if cell.bits is None else cell.bits / MOST_BITS
    said = f"{cell.role}, block {cell.block}: {word}"
    return HeatCell(cell.role, blocks.index(cell.block), strength, is_float, said)
