"""Strip plot with one line per method and one dot per seed, with the mean as a tick.

Bars of means would hide whether the dots of two methods overlap. Dots of one seed have the same
colour, so that a seed can be followed through all methods. The axis is fitted to the values,
because differences are small compared with the distance from zero.
"""

from __future__ import annotations

from functools import partial

from attar.progress import counted
from attar.report.charts.bars import AIR, fitted, unique
from attar.report.charts.curves import LINE_COLOURS, line_colour
from attar.report.charts.pictures import CURVE_SHAPES, Key, Picture, drawn_twice
from attar.report.charts.svg import Shape, alt, coloured, drawn_of, name_axis, svg_of
from attar.report.charts.ticks import ticked
from attar.report.quantities import SHOWN_AS_PERCENT, metric_text
from attar.report.sections.seed_comparisons import MEAN, SeedComparison

ROW_PX = 30


def seed_picture(comparison: SeedComparison) -> Picture:
    said = "; ".join(
        f"{method.name} {metric_text(comparison.metric, method.spread.mean)} over "
        + counted(method.spread.n, "seed")
        for method in comparison.methods
    )
    title = f"{comparison.metric.capitalize()} of every seed"
    label = f"{title}, {comparison.where}. {said}. The table has every figure."
    colours = _colours(comparison)
    keys = tuple(Key(seed, colour, "circle") for seed, colour in colours.items())
    if len(keys) > len(LINE_COLOURS):  # a colour that means two seeds explains nothing
        keys = ()
    draw = partial(_drawn, comparison)
    return drawn_twice(title, label, draw, CURVE_SHAPES, keys=keys, note="Tick: the mean.")


def _colours(comparison: SeedComparison) -> dict[str, str]:
    seeds = dict.fromkeys(seed for method in comparison.methods for seed in method.scores)
    return {seed: line_colour(place) for place, seed in enumerate(seeds)}


def _drawn(comparison: SeedComparison, shape: Shape, label: str) -> str:
    methods, colours = comparison.methods, _colours(comparison)
    names = unique([method.name for method in methods])
    rows = [
        {
            "name": name,
            "value": value,
            "seed": seed,
            "said": f"{method.name}, {seed}: {metric_text(comparison.metric, value)}",
        }
        for name, method in zip(names, methods, strict=True)
        for seed, value in method.scores.items()
    ]
    means = [
        {"name": name, "value": method.spread.mean}
        for name, method in zip(names, methods, strict=True)
    ]
    values = [float(row["value"]) for row in rows]
    air = AIR * (max(values) - min(values)) or AIR * abs(values[0]) or 1.0
    low, high = min(values) - air, max(values) + air
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    is_share = comparison.metric in SHOWN_AS_PERCENT or comparison.metric == MEAN
    axis = alt.Axis(
        title=f"{comparison.metric}, {'points' if comparison.metric == MEAN else '%'}"
        if is_share
        else comparison.metric,
        **ticked(low, high, 5, comparison.metric, is_share=is_share).axis,
        labelFlush=False,
        titlePadding=8,
    )
    x = alt.X("value:Q", scale=scale, axis=axis)
    y = name_axis(names, grid=True)
    colour = coloured("seed", colours, colours.values())
    ticks = drawn_of(means).mark_tick(
        size=ROW_PX * 0.6, thickness=2, color="var(--ink)", aria=False
    )
    dots = drawn_of(rows).mark_point(filled=True, size=60, opacity=0.85)
    layers = [
        dots.encode(x=x, y=y, color=colour, description=alt.Description("said:N")),
        ticks.encode(x=x, y=y),
    ]
    return svg_of(layers, fitted(names, shape, ROW_PX), label)
