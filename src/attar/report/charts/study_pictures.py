"""The pictures of studies, by a literal table: study → a function of its artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from attar.report.charts.bars import Bar, bars_svg
from attar.report.charts.curves import curves_svg
from attar.report.charts.disabling import damage_pictures
from attar.report.charts.gamma_cosine import gamma_cosine_pictures
from attar.report.charts.outliers import (
    MOST_ROWS,
    gamma_pictures,
    histogram_pictures,
    outlier_pictures,
)
from attar.report.charts.pictures import CURVE_SHAPES, Key, Picture, drawn_twice, line_keys
from attar.report.quantities import metric_text
from attar.report.reading import number, table
from attar.report.sections.study import Study
from attar.report.sections.training import Curve
from attar.report.study_tables.arranged import Row, by_stack, named_place

MOST_DIMENSIONS = 3
PROBLEMATIC_LOSS = 1.0
"""A cosine below 99 %, the paper's border."""
RISE = "var(--openvino)"


def study_pictures(study: Study) -> tuple[Picture, ...]:
    """The pictures of one study; none where a table says it better, or nothing was found."""
    draw = STUDY_PICTURES.get(study.study)
    return draw(study) if draw is not None and study.rows else ()


def _outlier_tokens(study: Study) -> tuple[Picture, ...]:
    pictures: list[Picture] = []
    stacks = by_stack(study.rows)
    for stack, own in stacks.items():
        of = f" of the {stack}" if len(stacks) > 1 else ""
        for dimension in list(dict.fromkeys(row.get("dimension") for row in own))[
            : 1 + MOST_DIMENSIONS
        ]:
            rows = [row for row in own if row.get("dimension") == dimension]
            what = "Any dimension" if dimension == "any" else f"Dimension {dimension}"
            pictures.append(_carriers(f"{what}{of}", rows))
    return tuple(pictures)


def _carriers(title: str, rows: Sequence[Row]) -> Picture:
    bars = [_carrier(row) for row in rows]
    said = ", ".join(f"{bar.name} {bar.values[0]:.0f} %" for bar in bars)
    keys = (
        Key("of the largest values", "var(--float)", "square"),
        Key("of all tokens", "var(--line)", "square"),
    )
    draw = partial(bars_svg, bars, ("var(--float)", "var(--line)"), "share, %")
    label = f"{title}: tokens that carry the largest values: {said}."
    return drawn_twice(title, label, draw, keys=keys)


def _carrier(row: Row) -> Bar:
    share, everywhere = (
        100 * (number(row.get(key)) or 0.0) for key in ("share", "share_of_tokens")
    )
    said = f"{share:.1f} % of the largest values, {everywhere:.1f} % of all tokens"
    return Bar(str(row.get("token")), (share, everywhere), said)


def _site_cosine(study: Study) -> tuple[Picture, ...]:
    rows = [row for row in study.rows if number(row.get("cosine")) is not None][:MOST_ROWS]
    bars = [_site_bar(row) for row in rows]
    bits = table(study.content.get("facts")).get("bits")
    said = "; ".join(f"{bar.name} {bar.said}" for bar in bars[:6])
    draw = partial(bars_svg, bars, ("var(--float)",), "100 % − cosine", border=PROBLEMATIC_LOSS)
    return (
        drawn_twice(
            f"The {len(bars)} sites with the largest error at {bits} bits",
            f"Sites by cosine with their {bits}-bit versions: {said}.",
            draw,
            note=(
                "Dashed: a cosine of 99 %; sites below it are considered problematic in the "
                "literature."
            ),
        ),
    )


def _site_bar(row: Row) -> Bar:
    cosine = number(row.get("cosine")) or 0.0
    name = named_place(row, str(row.get("kind")).replace("_", " "))
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
        Key("gain when left in float", RISE, "square"),
        Key("loss when quantized alone", "var(--simulated)", "square"),
    )
    draw = partial(bars_svg, bars, (RISE, "var(--simulated)"), f"points of {metric}")
    label = f"Each kind of tensor: {'; '.join(f'{b.name} {b.said}' for b in bars)}; {whole}."
    note = f"{whole[0].upper()}{whole[1:]}."
    return (drawn_twice("Cost of each kind of tensor", label, draw, keys=keys, note=note),)


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
    said = "; ".join(
        f"{c.name} from {metric_text(metric, c.points[0][1])} to "
        f"{metric_text(metric, c.points[-1][1])}"
        for c in curves
    )
    label = f"{metric} by the share of clipped tokens: {said}."
    draw = partial(curves_svg, curves, metric, metric=metric, x_title="tokens clipped, %")
    title = "Quality as more tokens are clipped"
    note = f"Float: {metric_text(metric, number(facts.get('float')))}."
    return (drawn_twice(title, label, draw, CURVE_SHAPES, keys=line_keys(curves), note=note),)


STUDY_PICTURES: Mapping[str, Callable[[Study], tuple[Picture, ...]]] = {
    "outliers": outlier_pictures,
    "outlier_tokens": _outlier_tokens,
    "gamma": gamma_pictures,
    "histograms": histogram_pictures,
    "disabling": damage_pictures,
    "site_cosine": _site_cosine,
    "leave_one_kind": _leave_one_kind,
    "gamma_cosine": gamma_cosine_pictures,
    "clipping": _clipping,
}
