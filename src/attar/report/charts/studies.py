"""The pictures of studies, by a literal table: study → a function of its artifact.

A study whose answer is a table of figures (methods, seconds, sizes) has no row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attar.report.charts.bars import Bar, bars_svg, dumbbells_svg
from attar.report.charts.curves import LINE_COLOURS, curves_svg
from attar.report.charts.heatmap import Cell, heatmap_svg
from attar.report.charts.pictures import CURVE_NARROW, CURVE_WIDE, Key, Picture
from attar.report.charts.svg import NARROW, WIDE, Shape
from attar.report.quantities import metric_text
from attar.report.reading import number, table
from attar.report.sections.studies import Study, rows_of
from attar.report.sections.training import Curve
from attar.report.studies.arranged import norm_name

MOST_ROWS = 20
"""Bars or dimensions in one picture; the table has them all."""
MOST_DIMENSIONS = 3
FULL_STRENGTH = 8.0
"""Standard deviations that are drawn opaque."""
BORDER = 3.0
PROBLEMATIC_LOSS = 1.0
"""A cosine below 99 %, the paper's border."""
RISE, FALL = "var(--openvino)", "var(--bad)"
Row = Mapping[str, Any]
Draw = Callable[[Shape, str], str]


def study_pictures(study: Study) -> tuple[Picture, ...]:
    """The pictures of one study; none where a table says it better, or nothing was found."""
    draw = STUDY_PICTURES.get(study.study)
    return draw(study) if draw is not None and study.rows else ()


def _picture(title: str, label: str, draw: Draw, **more: Any) -> Picture:
    return Picture(title, label, draw(WIDE, label), draw(NARROW, label), **more)


def _outliers(study: Study) -> tuple[Picture, ...]:
    pictures: list[Picture] = []
    shared = rows_of(study.content, "shared")
    for stack in dict.fromkeys(str(row.get("stack")) for row in shared):
        norms = [row for row in study.rows if row.get("stack") == stack]
        listed = [row for row in shared if row.get("stack") == stack][:MOST_ROWS]
        names = [str(row.get("dimension")) for row in listed]
        cells = [
            _deviation(name, place, norm, number(table(norm.get("strengths")).get(name)) or 0.0)
            for name in names
            for place, norm in enumerate(norms)
        ]
        said = "; ".join(f"{r.get('dimension')} in {r.get('norms')} norms" for r in listed)
        draw = partial(_heat, cells, names, _depth_names(norms))
        pictures.append(
            _picture(
                f"Outlier dimensions of the {stack}, through its depth",
                f"Outlier dimensions of the {stack} by norm: {said}.",
                draw,
                note="Darker: more standard deviations from the mean of the norm's dimensions. "
                "Framed: more than three, an outlier. e: embedding; numbers: blocks, each with "
                "its norms from left to right.",
            )
        )
    return tuple(pictures)


def _heat(
    cells: Sequence[Cell], rows: Sequence[str], columns: Sequence[str], shape: Shape, label: str
) -> str:
    return heatmap_svg(cells, rows, columns, "block", shape, label)


def _deviation(name: str, place: int, norm: Row, sigmas: float) -> Cell:
    said = f"dimension {name}, {norm_name(norm)}: {sigmas:.1f} standard deviations"
    strength = min(sigmas / FULL_STRENGTH, 1.0)
    return Cell(name, place, strength, counts=sigmas > BORDER, said=said)


def _depth_names(norms: Sequence[Row]) -> list[str]:
    """The block's number at its first norm; "e" at the embedding's."""
    names, before = [], object()
    for norm in norms:
        block = norm.get("block")
        word = "e" if norm.get("kind") == "embedding" else "" if block is None else str(block)
        names.append(word if block != before or block is None else "")
        before = block
    return names


def _outlier_tokens(study: Study) -> tuple[Picture, ...]:
    pictures: list[Picture] = []
    for dimension in list(dict.fromkeys(row.get("dimension") for row in study.rows)):
        if len(pictures) > MOST_DIMENSIONS:
            break
        rows = [row for row in study.rows if row.get("dimension") == dimension]
        bars = [_carrier(row) for row in rows]
        title = "Any dimension" if dimension == "any" else f"Dimension {dimension}"
        said = ", ".join(f"{bar.name} {bar.values[0]:.0f} %" for bar in bars)
        keys = (
            Key("of the largest values", "var(--float)", "square"),
            Key("of all tokens", "var(--line)", "square"),
        )
        draw = partial(_bars, bars, ("var(--float)", "var(--line)"), "share, %")
        label = f"{title}: tokens that carry the largest values: {said}."
        pictures.append(_picture(title, label, draw, keys=keys))
    return tuple(pictures)


def _carrier(row: Row) -> Bar:
    share, everywhere = (
        100 * (number(row.get(key)) or 0.0) for key in ("share", "share_of_tokens")
    )
    said = f"{share:.1f} % of the largest values, {everywhere:.1f} % of all tokens"
    return Bar(str(row.get("token")), (share, everywhere), said)


def _bars(
    rows: Sequence[Bar],
    colours: Sequence[str],
    title: str,
    shape: Shape,
    label: str,
    border: float | None = None,
) -> str:
    return bars_svg(rows, colours, title, shape, label, border)


def _site_cosine(study: Study) -> tuple[Picture, ...]:
    rows = [row for row in study.rows if number(row.get("cosine")) is not None][:MOST_ROWS]
    bars = [_site_bar(row) for row in rows]
    bits = table(study.content.get("facts")).get("bits")
    said = "; ".join(f"{bar.name} {bar.said}" for bar in bars[:6])
    draw = partial(_bars, bars, ("var(--float)",), "100 % − cosine", border=PROBLEMATIC_LOSS)
    return (
        _picture(
            f"The {len(bars)} sites that lose most in {bits} bits",
            f"Sites by cosine with their {bits}-bit selves: {said}.",
            draw,
            note="Dashed: a cosine of 99 %, below which the literature calls a site problematic.",
        ),
    )


def _site_bar(row: Row) -> Bar:
    cosine = number(row.get("cosine")) or 0.0
    stack = "decoder " if row.get("stack") == "decoder" else ""
    block = row.get("block")
    kind = str(row.get("kind")).replace("_", " ")
    name = f"{stack}{kind}" if block is None else f"{stack}{block} {kind}"
    return Bar(name, (100 * (1 - cosine),), f"cosine {100 * cosine:.2f} %")


def _leave_one_kind(study: Study) -> tuple[Picture, ...]:
    facts = table(study.content.get("facts"))
    bars = []
    for row in study.rows:
        recovered, lost = (100 * (number(row.get(key)) or 0.0) for key in ("recovered", "lost"))
        said = f"{recovered:+.1f} points left in float, {-lost:+.1f} points quantized alone"
        bars.append(Bar(str(row.get("kind")).replace("_", " "), (recovered, lost), said))
    metric = str(facts.get("metric", "quality"))
    whole = f"all quantized {metric_text(metric, number(facts.get('quantized')))}, float "
    whole += metric_text(metric, number(facts.get("float")))
    keys = (
        Key("comes back when left in float", RISE, "square"),
        Key("is lost when quantized alone", "var(--simulated)", "square"),
    )
    draw = partial(_bars, bars, (RISE, "var(--simulated)"), f"points of {metric}")
    label = f"Each kind of tensor: {'; '.join(f'{b.name} {b.said}' for b in bars)}; {whole}."
    note = f"{whole[0].upper()}{whole[1:]}."
    return (_picture("What each kind of tensor costs", label, draw, keys=keys, note=note),)


def _gamma_cosine(study: Study) -> tuple[Picture, ...]:
    bars = []
    for row in study.rows[: 2 * MOST_ROWS]:
        before, after = (100 * (number(row.get(key)) or 0.0) for key in ("cosine", "migrated"))
        bars.append(Bar(_short_norm(row), (before, after), f"{before:.2f} % to {after:.2f} %"))
    bits = table(study.content.get("facts")).get("bits")
    keys = (
        Key("better without γ (filled dot)", RISE, "circle"),
        Key("worse without γ", FALL, "circle"),
    )
    said = "; ".join(f"{bar.name} {bar.said}" for bar in bars)

    def draw(shape: Shape, label: str) -> str:
        return dumbbells_svg(
            bars, (RISE, FALL), f"cosine with the {bits}-bit self, %", shape, label
        )

    label = f"Cosine of each norm's output with and without γ: {said}."
    return (_picture("With γ (hollow) and without (filled)", label, draw, keys=keys),)


def _short_norm(row: Row) -> str:
    kind = {"mha_norm": "attention", "ffn_norm": "FFN", "cross_norm": "cross"}
    word = kind.get(str(row.get("kind")), str(row.get("kind")).replace("_", " "))
    stack = "decoder " if row.get("stack") == "decoder" else ""
    block = row.get("block")
    return f"{stack}{word}" if block is None else f"{stack}{block} {word}"


def _clipping(study: Study) -> tuple[Picture, ...]:
    facts = table(study.content.get("facts"))
    metric = str(facts.get("metric", ""))
    curves = []
    for kind in dict.fromkeys(str(row.get("kind")) for row in study.rows):
        points = [
            (100 * (1 - (number(row.get("tokens_whole")) or 0.0)), number(row.get("value")) or 0.0)
            for row in study.rows
            if row.get("kind") == kind
        ]
        curves.append(Curve(kind.replace("_", " "), tuple(sorted(points))))
    keys = tuple(
        Key(curve.name, LINE_COLOURS[place % len(LINE_COLOURS)])
        for place, curve in enumerate(curves)
    )
    said = "; ".join(
        f"{c.name} from {metric_text(metric, c.points[0][1])} to "
        f"{metric_text(metric, c.points[-1][1])}"
        for c in curves
    )
    label = f"{metric} by the share of clipped tokens: {said}."
    wide, narrow = (
        curves_svg(curves, metric, shape, label, metric=metric, x_title="tokens clipped, %")
        for shape in (CURVE_WIDE, CURVE_NARROW)
    )
    title = "Quality as more tokens lose their largest values"
    note = f"Float: {metric_text(metric, number(facts.get('float')))}."
    return (Picture(title, label, wide, narrow, keys, note),)


STUDY_PICTURES: Mapping[str, Callable[[Study], tuple[Picture, ...]]] = {
    "outliers": _outliers,
    "outlier_tokens": _outlier_tokens,
    "site_cosine": _site_cosine,
    "leave_one_kind": _leave_one_kind,
    "gamma_cosine": _gamma_cosine,
    "clipping": _clipping,
}
