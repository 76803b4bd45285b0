"""Charts of the effect of gamma migration, per norm, and per dimension for the most extreme norms.

y and X' = y / γ have different scales. So each is divided by its own median over the dimensions,
and 1 is an ordinary dimension in every bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from attar.report.charts.bars import Bar, bars_svg, dumbbells_svg
from attar.report.charts.outliers import MOST_ROWS, norm_short
from attar.report.charts.pictures import Key, Picture, drawn_twice
from attar.report.quantities import number_text
from attar.report.reading import number, table, tables
from attar.report.sections.study import Study
from attar.report.study_tables.arranged import Row, norm_name, over_median

MOST_NORMS, MOST_DIMENSIONS = 4, 8
"""Drawn dimension by dimension; study.json has more of both."""
GOOD, BAD = "var(--openvino)", "var(--bad)"
SERIES = (
    ("|γ|", "gamma", "var(--muted)"),
    ("|y| (with γ)", "y", BAD),
    ("|X'| (without)", "x", GOOD),
)
"""(what is said, its key in study.json, its colour)"""


def gamma_cosine_pictures(study: Study) -> tuple[Picture, ...]:
    """The cosine of each norm, how far it reaches, and the few that reach furthest in detail."""
    reaching = [row for row in study.rows if over_median(row, "y") and over_median(row, "x")]
    furthest = sorted(reaching, key=lambda row: -(over_median(row, "y") or 0.0))[:MOST_NORMS]
    return (
        _cosines(study),
        *([_reach(reaching)] if reaching else []),
        *(_by_dimension(row) for row in furthest),
    )


def _cosines(study: Study) -> Picture:
    bars = []
    for row in study.rows[: 2 * MOST_ROWS]:
        before, after = (100 * (number(row.get(key)) or 0.0) for key in ("cosine", "migrated"))
        bars.append(Bar(norm_short(row), (before, after), f"{before:.2f} % to {after:.2f} %"))
    bits = table(study.content.get("facts")).get("bits")
    keys = (
        Key("better without γ (filled dot)", GOOD, "circle"),
        Key("worse without γ", BAD, "circle"),
    )
    said = "; ".join(f"{bar.name} {bar.said}" for bar in bars)
    return drawn_twice(
        "Cosine with γ (hollow) and without (filled)",
        f"Cosine of each norm's output with and without γ: {said}.",
        partial(dumbbells_svg, bars, (GOOD, BAD), f"cosine with its {bits}-bit version, %"),
        keys=keys,
    )


def _reach(rows: Sequence[Row]) -> Picture:
    """The largest dimension over the median one, with γ and without."""
    bars = []
    for row in rows[: 2 * MOST_ROWS]:
        values = (over_median(row, "y") or 0.0, over_median(row, "x") or 0.0)
        before, after = map(number_text, values)
        bars.append(Bar(norm_short(row), values, f"{before} to {after} times the median"))
    said = "; ".join(f"{bar.name} {bar.said}" for bar in bars)
    return drawn_twice(
        "Largest dimension with γ (hollow) and without (filled)",
        f"Largest value of each norm's output over its median dimension, with and without γ: "
        f"{said}.",
        partial(dumbbells_svg, bars, (BAD, GOOD), "largest dimension over the median one"),
        keys=(
            Key("smaller without γ (filled dot)", GOOD, "circle"),
            Key("stronger without γ", BAD, "circle"),
        ),
        note="A dimension counts by its largest magnitude over all tokens.",
    )


def _by_dimension(row: Row) -> Picture:
    """γ, y and X' of the dimensions where y is largest, each over its median dimension."""
    name = norm_name(row)
    medians = [number(row.get(f"median_{key}")) or 1.0 for _, key, _ in SERIES]
    bars = []
    for found in tables(row.get("dimensions"))[:MOST_DIMENSIONS]:
        values = [abs(number(found.get(key)) or 0.0) for _, key, _ in SERIES]
        told = zip(SERIES, values, strict=True)
        said = ", ".join(f"{which} {number_text(value)}" for (which, *_), value in told)
        shares = tuple(v / median for v, median in zip(values, medians, strict=True))
        bars.append(Bar(str(found.get("dimension")), shares, said))
    said = "; ".join(f"{bar.name}: {bar.said}" for bar in bars)
    colours = [colour for *_, colour in SERIES]
    return drawn_twice(
        f"{name[0].upper()}{name[1:]}: where y is largest",
        f"Dimensions of {name} where y is largest: {said}.",
        partial(bars_svg, bars, colours, "times the median dimension", border=1.0),
        keys=tuple(Key(what, colour, "square") for what, _, colour in SERIES),
        note="Each in multiples of its own median dimension (dashed); rows are dimensions.",
    )
