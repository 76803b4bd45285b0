"""Charts of the studies of outliers: dimensions through the depth of a model, magnitudes, and the
scales of norms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from attar.report.charts.bars import Bar, Extent, bars_svg, ranges_svg
from attar.report.charts.heatmap import Cell, heatmap_svg
from attar.report.charts.histogram_panels import Panel, panels_svg
from attar.report.charts.pictures import Key, Picture, drawn_twice
from attar.report.quantities import number_text
from attar.report.reading import number, table
from attar.report.sections.study import Study, rows_of
from attar.report.study_tables.arranged import Row, by_stack, named_place, norm_name

MOST_ROWS = 20
"""Maximum number of dimensions or norms in a picture; the table has all."""
FULL_STRENGTH = 8.0
"""Standard deviations that are drawn opaque."""
BORDER = 3.0
MODEL_COLOURS = ("var(--float)", "var(--simulated)")
NORM_COLOURS = ("var(--float)", "var(--bad)")
LEFT_OF_MEDIAN = 10.0
"""Values smaller than a median by this factor are not drawn; they are similar in every model."""


def outlier_pictures(study: Study) -> tuple[Picture, ...]:
    """For each stack a heat map of its outlier dimensions, and how its magnitudes grow."""
    shared, layers = rows_of(study.content, "shared"), rows_of(study.content, "layers")
    is_share = table(study.content.get("facts")).get("criterion") == "activation_magnitude"
    pictures: list[Picture] = []
    places, listed, states = by_stack(study.rows), by_stack(shared), by_stack(layers)
    for stack in listed | states:
        if stack in listed and stack in places:
            most = listed[stack][:MOST_ROWS]
            pictures.append(_heat_map(stack, places[stack], most, is_share))
        if stack in states:
            pictures.append(_growth(stack, states[stack]))
    return tuple(pictures)


def _heat_map(stack: str, places: Sequence[Row], listed: Sequence[Row], is_share: bool) -> Picture:
    names = [str(row.get("dimension")) for row in listed]
    cells = [
        _cell(name, column, place, is_share)
        for name in names
        for column, place in enumerate(places)
    ]
    said = "; ".join(f"{r.get('dimension')} in {r.get('norms')} places" for r in listed)
    draw = partial(heatmap_svg, cells, names, _depth_names(places), "block")
    has_norms = any(row.get("kind") in ("mha_norm", "ffn_norm") for row in places)
    each = ", each with its norms from left to right" if has_norms else ""
    what = (
        "Stronger colour: large in more of the tokens. Framed: an outlier by the criterion."
        if is_share
        else "Stronger colour: more standard deviations from the mean of the dimensions there. "
        "Framed: more than three, an outlier."
    )
    return drawn_twice(
        f"Outlier dimensions of the {stack}, through its depth",
        f"Outlier dimensions of the {stack} by place: {said}.",
        draw,
        note=f"{what} e: embedding; numbers: blocks{each}.",
    )


def _cell(name: str, column: int, place: Row, is_share: bool) -> Cell:
    strength = number(table(place.get("strengths")).get(name)) or 0.0
    listed = place.get("dimensions")
    where = f"dimension {name}, {norm_name(place)}"
    if is_share:
        counts = isinstance(listed, list) and int(name) in listed
        said = f"{where}: large in {100 * strength:.1f} % of the tokens"
        return Cell(name, column, strength, counts, said)
    said = f"{where}: {strength:.1f} standard deviations"
    shade = min(max(strength, 0.0) / FULL_STRENGTH, 1.0)
    return Cell(name, column, shade, strength > BORDER, said)


def _depth_names(places: Sequence[Row]) -> list[str]:
    """The block's number at its first place; "e" at the embedding's."""
    names, before = [], object()
    for place in places:
        block = place.get("block")
        word = "e" if place.get("kind") == "embedding" else "" if block is None else str(block)
        names.append(word if block != before or block is None else "")
        before = block
    return names


def _growth(stack: str, states: Sequence[Row]) -> Picture:
    """Ratio of the maximum to the median, from the embedding to the last block."""
    bars = []
    for row in states[: 2 * MOST_ROWS]:
        ratio = number(row.get("max_to_median")) or 0.0
        largest, where = number(row.get("largest")), row.get("largest_dimension")
        said = (
            f"{number_text(largest)} in dimension {where}, {number_text(ratio)} times the median; "
            f"kurtosis {number_text(number(row.get('kurtosis')))}"
        )
        bars.append(Bar(state_name(row), (ratio,), said))
    said = "; ".join(f"{bar.name} {number_text(bar.values[0])}" for bar in bars)
    title = "largest magnitude over the median"
    return drawn_twice(
        f"Largest values in the {stack}",
        f"Largest magnitude over the median in each hidden state of the {stack}: {said}.",
        partial(bars_svg, bars, (MODEL_COLOURS[0],), title),
        note="Each hidden state's largest value as a multiple of its median magnitude.",
    )


def state_name(row: Row) -> str:
    """Readable name of a hidden state.

    Example:
        >>> state_name({"block": 3, "kind": "block"}), state_name({"kind": "embedding"})
        ('block 3', 'embedding')
    """
    block = row.get("block")
    normed = ", normed" if row.get("kind") == "normed_block" else ""
    return "embedding" if block is None else f"block {block}{normed}"


def gamma_pictures(study: Study) -> tuple[Picture, ...]:
    """For each stack, the range of γ of each norm, with outliers."""
    pictures: list[Picture] = []
    for stack, rows in by_stack(study.rows).items():
        lines = [_extent(row) for row in rows[: 2 * MOST_ROWS]]
        said = "; ".join(f"{line.name} {len(line.dots)}" for line in lines)
        draw = partial(ranges_svg, lines, NORM_COLOURS, "γ")
        pictures.append(
            drawn_twice(
                f"Scales γ of the {stack}'s norms",
                f"γ of each norm of the {stack}; dimensions that stand out: {said}.",
                draw,
                keys=(
                    Key("all γ", NORM_COLOURS[0]),
                    Key("within 3 standard deviations", NORM_COLOURS[0], "square"),
                    Key("outlier dimensions", NORM_COLOURS[1], "circle"),
                ),
            )
        )
    return tuple(pictures)


def _extent(row: Row) -> Extent:
    gamma = table(row.get("gamma"))
    mean, std, low, high = (number(gamma.get(k)) or 0.0 for k in ("mean", "std", "min", "max"))
    dots = tuple(
        (value, f"dimension {name}: γ {number_text(value)}")
        for name, found in table(gamma.get("outliers")).items()
        if (value := number(found)) is not None
    )
    return Extent(norm_short(row), low, high, (mean - BORDER * std, mean + BORDER * std), dots)


def norm_short(row: Row) -> str:
    """Short name of a norm.

    Example:
        >>> norm_short({"block": 3, "kind": "mha_norm"}), norm_short({"kind": "embedding"})
        ('3 attention', 'embedding')
    """
    kind = {"mha_norm": "attention", "ffn_norm": "FFN", "cross_norm": "cross"}
    word = kind.get(str(row.get("kind")), str(row.get("kind")).replace("_", " "))
    return named_place(row, word)


def histogram_pictures(study: Study) -> tuple[Picture, ...]:
    """For each stack, one panel per hidden state and model, all with the same scale."""
    per_octave = number(table(study.content.get("facts")).get("bins_per_octave")) or 4.0
    rows = [row for row in study.rows if number(row.get("largest"))]
    if not rows:
        return ()
    models = list(dict.fromkeys(str(row.get("model")) for row in rows))
    low = min(number(row.get("median")) or math.inf for row in rows) / LEFT_OF_MEDIAN
    high = max(number(row.get("largest")) or 0.0 for row in rows)
    span = (math.log10(low if 0 < low < high else high / 1e3), math.log10(high) + 0.15)
    return tuple(
        _histograms(stack, own, models, span, per_octave) for stack, own in by_stack(rows).items()
    )


def _histograms(
    stack: str,
    rows: Sequence[Row],
    models: Sequence[str],
    span: tuple[float, float],
    per_octave: float,
) -> Picture:
    numbers = sorted({int(number(row.get("line")) or 0) for row in rows})
    lines = [_line_name([row for row in rows if row.get("line") == line]) for line in numbers]
    panels = [
        Panel(
            line=numbers.index(int(number(row.get("line")) or 0)),
            column=models.index(str(row.get("model"))),
            bins=_bins(row, per_octave),
            largest=number(row.get("largest")) or 0.0,
            said=f"{row.get('model')}, {state_name(row)}",
        )
        for row in rows
    ]
    said = "; ".join(f"{panel.said} up to {number_text(panel.largest)}" for panel in panels)
    return drawn_twice(
        f"Magnitudes in the {stack}, layer by layer",
        f"Histograms of magnitudes in the hidden states of the {stack}: {said}.",
        partial(panels_svg, panels, lines, models, MODEL_COLOURS, span),
        keys=tuple(Key(m, c, "square") for m, c in zip(models, MODEL_COLOURS, strict=False)),
        note="Both axes are logarithmic and the same in every panel; heights are counts of values "
        f"from 1 to {max(n for p in panels for *_, n in p.bins):,} a bin. "
        f"Values below {number_text(10 ** span[0], 1)} are not drawn.",
    )


def _line_name(rows: Sequence[Row]) -> str:
    """Of one depth; of two models of different depth, both their names."""
    first, *others = dict.fromkeys(state_name(row) for row in rows)
    return " | ".join([first, *(name.removeprefix("block ") for name in others)])


def _bins(row: Row, per_octave: float) -> tuple[tuple[float, float, int], ...]:
    first, counts = number(row.get("first_bin")) or 0.0, row.get("counts")
    step = math.log10(2) / per_octave
    return tuple(
        ((first + place) * step, (first + place + 1) * step, int(count))
        for place, count in enumerate(counts if isinstance(counts, list) else [])
        if count
    )
