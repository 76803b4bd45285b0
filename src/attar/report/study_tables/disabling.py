"""Tables of the study `disabling`: damage in points, or in the unit of a language metric."""

from __future__ import annotations

from collections.abc import Sequence

from attar.report.quantities import DASH, QUALITIES, fixed_text, number_text
from attar.report.reading import ends_of, number, table
from attar.report.study_tables.arranged import Column, Row

PLACES = {"zero": "set to zero", "mean": "set to the mean"}
INFINITE = "∞"


def with_damage_summary(
    rows: Sequence[Row], facts: Row
) -> tuple[tuple[Column, ...], Sequence[Row]]:
    """One row a replacement: both damages and their ratio, each with its interval."""
    unit, shown = ", points" if _factor(facts) > 1 else "", []
    for row in rows:
        ratio = number(row.get("ratio"))
        shown.append(
            {
                "place": _place(row),
                "outlier": _with_interval(row, "outlier", facts),
                "null": _with_interval(row, "null", facts),
                "ratio": DASH if ratio is None else f"{number_text(ratio)}×",
                "ratio_ends": _ratio_ends(*ends_of(row.get("ratio_ci95"))),
                "as_bad": f"{row.get('as_bad')} of {row.get('choices')}",
                "p_value": number_text(number(row.get("p_value")), 2),
            }
        )
    columns = (
        Column("outlier", f"damage{unit}", "text"),
        Column("null", f"of random others{unit}", "text"),
        Column("ratio", "ratio", "text"),
        Column("ratio_ends", "95 % interval", "text"),
        Column("as_bad", "choices as bad", "text"),
        Column("p_value", "p", "text"),
    )
    return columns, shown


def with_damage(rows: Sequence[Row], facts: Row) -> tuple[tuple[Column, ...], Sequence[Row]]:
    factor, points = _factor(facts), "" if _factor(facts) == 1 else ", points"
    shown = []
    for row in rows:
        se = number(row.get("se"))
        shown.append(
            {
                **row,
                "run": _run_name(str(row.get("run", ""))),
                "place": _place(row),
                "se": None if se is None else factor * se,
                "damage": _with_interval(row, "damage", facts),
                "dimensions": "; ".join(
                    ", ".join(map(str, each)) if isinstance(each, list) else str(each)
                    for each in table(row.get("dimensions")).values()
                )
                or DASH,
            }
        )
    columns = (
        Column("value", "metric", "metric"),
        Column("se", f"standard error{points}"),
        Column("damage", f"damage{points}", "text"),
        Column("dimensions", "dimensions", "text"),
    )
    return columns, shown


def _factor(facts: Row) -> float:
    return 100.0 if str(facts.get("metric", "")) in QUALITIES else 1.0


def _place(row: Row) -> str:
    word = row.get("replacement")
    return DASH if word is None else PLACES.get(str(word), str(word))


def _run_name(run: str) -> str:
    if run.startswith("null "):
        return f"random choice {int(run.split()[1]) + 1}" if run.split()[1].isdigit() else run
    return {"full": "nothing disabled", "outlier": "outlier dimensions"}.get(run, run)


def _with_interval(row: Row, key: str, facts: Row) -> str:
    """A damage and its interval in points or in the metric's unit."""
    factor = _factor(facts)
    value = number(row.get(key))
    if value is None:
        return DASH
    low, high = ends_of(row.get(f"{key}_ci95"))
    digits = 1 if factor > 1 else 3
    said = [fixed_text(factor * x, digits) for x in (value, low or 0.0, high or 0.0)]
    return said[0] if low is None or high is None else f"{said[0]} ({said[1]} … {said[2]})"


def _ratio_ends(low: float | None, high: float | None) -> str:
    """None is an end that the data do not give."""
    if low is None:
        return DASH
    return f"{number_text(low, 2)} … {INFINITE if high is None else number_text(high)}"
