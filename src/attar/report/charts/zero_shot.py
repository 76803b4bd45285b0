"""Accuracy on zero-shot tasks: a line a task, a dot with its interval a model, and a tick where
guessing lies."""

from __future__ import annotations

from functools import partial

from attar.report.charts.bars import fitted, unique
from attar.report.charts.curves import line_colour
from attar.report.charts.pictures import CURVE_SHAPES, Key, Picture, drawn_twice
from attar.report.charts.svg import Shape, alt, coloured, drawn_of, name_axis, svg_of
from attar.report.charts.ticks import ticked
from attar.report.sections.zero_shot import ZeroShot

ROW_PX, MODEL_PX = 20, 9
AIR = 0.03


def zero_shot_picture(found: ZeroShot) -> Picture:
    said = "; ".join(
        f"{row.title} " + ", ".join(f"{score.model} {score.text}" for score in row.scores)
        for row in found.rows
    )
    keys = [Key(model, line_colour(place), "circle") for place, model in enumerate(found.models)]
    return drawn_twice(
        "Accuracy by task",
        f"Accuracy on zero-shot tasks. {said}. The table has every figure.",
        partial(_drawn, found),
        CURVE_SHAPES,
        keys=tuple(keys[1:] and keys),
        note="Bars: 95 % intervals over rows. Tick: accuracy of guessing.",
    )


def _drawn(found: ZeroShot, shape: Shape, label: str) -> str:
    names = unique([row.title for row in found.rows])
    places = {model: str(place) for place, model in enumerate(found.models)}
    dots = [
        {
            **{"name": name, "model": places[score.model], "value": score.value},
            **{"low": score.low, "high": score.high},
            "said": f"{row.title}, {score.model}: {score.text} ({score.detail})",
        }
        for name, row in zip(names, found.rows, strict=True)
        for score in row.scores
    ]
    guesses = [
        {"name": name, "value": row.chance} for name, row in zip(names, found.rows, strict=True)
    ]
    ends = [end for dot in dots for end in (dot["low"], dot["high"])]
    ends += [guess["value"] for guess in guesses]
    low, high = max(min(ends) - AIR, -AIR), min(max(ends) + AIR, 1 + AIR)
    ticks = ticked(max(low, 0.0), min(high, 1.0), 5, "accuracy", is_share=True)
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    axis = alt.Axis(title="accuracy, %", **ticks.axis, labelFlush=False, titlePadding=8)
    x, y = alt.X("value:Q", scale=scale, axis=axis), name_axis(names, grid=True)
    series = list(places.values())
    colour = coloured("model", series, [line_colour(place) for place in range(len(series))])
    offset = alt.YOffset("model:N", sort=series)
    tall = ROW_PX + MODEL_PX * (len(series) - 1)
    chance = drawn_of(guesses).mark_tick(
        size=tall * 0.8, thickness=1.5, color="var(--muted)", aria=False
    )
    bars = drawn_of(dots).mark_rule(strokeWidth=2, opacity=0.7, aria=False)
    marks = drawn_of(dots).mark_point(filled=True, size=44, opacity=1)
    layers = [
        chance.encode(x=x, y=y),
        bars.encode(
            x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q", y=y, yOffset=offset, color=colour
        ),
        marks.encode(x=x, y=y, yOffset=offset, color=colour, description=alt.Description("said:N")),
    ]
    return svg_of(layers, fitted(names, shape, tall), label)
