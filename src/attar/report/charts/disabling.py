"""The chart of the study `disabling`: the quality lost without some dimensions.

One line per replacement. A small dot is one random choice of dimensions; the large dot is the
outlier dimensions, with their 95 % interval as a bar. The question is whether the large dot is
among the small ones or apart. The dashed line means no damage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from attar.report.charts.bars import AIR, fitted
from attar.report.charts.pictures import CURVE_SHAPES, Key, Picture, drawn_twice
from attar.report.charts.svg import (
    Shape,
    alt,
    drawn_of,
    fitted_scale,
    name_axis,
    svg_of,
    value_axis,
)
from attar.report.quantities import QUALITIES, number_text
from attar.report.reading import ends_of, number, table
from attar.report.sections.study import Study, rows_of
from attar.report.study_tables.disabling import PLACES

ROW_PX = 38
OUTLIER, OTHERS = "var(--bad)", "var(--muted)"
Row = Mapping[str, Any]


def damage_pictures(study: Study) -> tuple[Picture, ...]:
    """The runs of one study; none where nothing was disabled."""
    runs = [row for row in study.rows if number(row.get("damage")) is not None]
    if not runs:
        return ()
    metric = str(table(study.content.get("facts")).get("metric", ""))
    factor, unit = (100.0, "points of ") if metric in QUALITIES else (1.0, "")
    dots = [_dot(row, factor) for row in runs]
    said = "; ".join(_said(name, dots) for name in dict.fromkeys(str(d["name"]) for d in dots))
    title = f"Lost {unit}{metric}" if unit else f"Rise of {metric}"
    label = f"{title} without some dimensions. {said}."
    draw = partial(_drawn, dots, title)
    keys = (
        Key("outlier dimensions, with 95 % interval", OUTLIER, "circle"),
        Key("the same number of random ones", OTHERS, "circle"),
    )
    sentences = [str(row.get("sentence", "")) for row in rows_of(study.content, "summary")]
    note = " ".join([f"{sentence[:1].upper()}{sentence[1:]}" for sentence in sentences])
    note = f"Dashed: no loss. {note}"
    what = "Effect of disabling dimensions"
    return (drawn_twice(what, label, draw, CURVE_SHAPES, keys=keys, note=note),)


def _said(name: str, dots: Sequence[Mapping[str, Any]]) -> str:
    own = [dot for dot in dots if dot["name"] == name]
    at = {
        is_outlier: [float(dot["value"]) for dot in own if dot["is_outlier"] == is_outlier]
        for is_outlier in (True, False)
    }
    words = []
    if at[True]:
        words.append(f"outlier dimensions {number_text(at[True][0])}")
    if at[False]:
        words.append(f"random ones {number_text(min(at[False]))} to {number_text(max(at[False]))}")
    return f"{name}: {', '.join(words)}"


def _dot(row: Row, factor: float) -> dict[str, Any]:
    is_outlier, ends = row.get("run") == "outlier", ends_of(row.get("damage_ci95"))
    value = factor * (number(row.get("damage")) or 0.0)
    low, high = (factor * end if end is not None else value for end in ends)
    dimensions = "; ".join(
        f"{stack} {', '.join(map(str, each))}"
        for stack, each in table(row.get("dimensions")).items()
    )
    word = str(row.get("replacement"))
    return {
        "name": PLACES.get(word, word),
        "value": value,
        "low": low if is_outlier else value,
        "high": high if is_outlier else value,
        "is_outlier": is_outlier,
        "said": f"{'outliers' if is_outlier else 'random'}, {dimensions}: {number_text(value)}",
    }


def _drawn(dots: Sequence[Mapping[str, Any]], title: str, shape: Shape, label: str) -> str:
    names = list(dict.fromkeys(str(dot["name"]) for dot in dots))
    ends = [0.0, *(float(dot[end]) for dot in dots for end in ("low", "high"))]
    scale, axis, y = fitted_scale(ends, AIR), value_axis(title), name_axis(names, grid=True)
    x = alt.X("value:Q", scale=scale, axis=axis)
    data = {
        is_outlier: drawn_of(d for d in dots if d["is_outlier"] == is_outlier)
        for is_outlier in (True, False)
    }
    nothing = drawn_of([{"value": 0.0}])
    said = alt.Description("said:N")
    layers = [
        nothing.mark_rule(stroke="var(--muted)", strokeDash=[4, 3], aria=False).encode(x=x),
        data[False]
        .mark_point(filled=True, size=44, opacity=0.55, color=OTHERS)
        .encode(x=x, y=y, description=said),
        data[True]
        .mark_rule(strokeWidth=2, color=OUTLIER, aria=False)
        .encode(x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q", y=y),
        data[True]
        .mark_point(filled=True, size=110, opacity=1, color=OUTLIER)
        .encode(x=x, y=y, description=said),
    ]
    return svg_of(layers, fitted(names, shape, ROW_PX), label)
