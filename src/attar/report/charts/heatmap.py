"""A heat map with darker cells for larger values, in one colour, so that it is readable in light
and dark mode and in print.

Columns are the depth of the model; rows are followed through it. Cells of strength 0 are empty,
cells of full strength opaque; relevant cells have a border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from attar.report.charts.labels import text_width
from attar.report.charts.svg import FONT_PX, Shape, alt, drawn_of, svg_of

ROW_PX = 20
TOP_PX = 8
"""No title stands above the plot."""
LABEL_EVERY_PX = 26
"""Columns are named no denser than this."""


@dataclass(frozen=True)
class Cell:
    row: str
    column: int
    strength: float
    """0 … 1."""
    counts: bool
    said: str


def heatmap_svg(
    cells: Sequence[Cell],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    shape: Shape,
    label: str,
) -> str:
    """The picture as inline SVG.

    Args:
        columns: a name a column; "" for none.
        title: what the columns are.
    """
    left = int(max(text_width(row, FONT_PX) for row in rows) + 12)
    height = shape.top + shape.bottom + ROW_PX * len(rows)
    shape = replace(shape, left=left, top=TOP_PX, height=height + TOP_PX - shape.top)
    shown = _thinned(columns, shape.plot_width / len(columns))
    data = [
        {
            "row": cell.row,
            "column": cell.column,
            "strength": cell.strength,
            "edge": 1.2 if cell.counts else 0,
            "said": cell.said,
        }
        for cell in cells
    ]
    axis = alt.Axis(
        title=title,
        labelExpr=f"{list(shown)!r}[datum.value]",
        labelAngle=0,
        labelLimit=0,
        labelOverlap=False,
        domain=False,
        ticks=False,
    )
    marks = drawn_of(data).mark_rect(fill="var(--float)", stroke="var(--ink)")
    chart = marks.encode(
        x=alt.X(
            "column:O",
            scale=alt.Scale(domain=list(range(len(columns))), paddingInner=0.08),
            axis=axis,
        ),
        y=alt.Y(
            "row:N",
            sort=list(rows),
            scale=alt.Scale(paddingInner=0.12),
            axis=alt.Axis(title=None, domain=False, ticks=False),
        ),
        fillOpacity=alt.FillOpacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1])),
        strokeWidth=alt.StrokeWidth("edge:Q", scale=None),
        description=alt.Description("said:N"),
    )
    return svg_of([chart], shape, label)


def _thinned(columns: Sequence[str], width: float) -> list[str]:
    """The names with so many left out that each has room."""
    named = [place for place, name in enumerate(columns) if name]
    if len(named) < 2:
        return list(columns)
    apart = width * (named[-1] - named[0]) / (len(named) - 1)
    every = max(1, -(-LABEL_EVERY_PX // max(int(apart), 1)))
    kept = set(named[::every])
    return [name if place in kept else "" for place, name in enumerate(columns)]
