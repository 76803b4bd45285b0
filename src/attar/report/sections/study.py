"""The studies of `analyze` steps as tables, with their conditions.

The artifact of a study has its rows as plain data (study.json). A table of layouts
(study_tables/layouts.py) determines which figures are shown, with headings and formats. A study
without a layout only shows its facts; report.json has all data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import DASH, fixed_text, metric_text, number_text, ratio_text
from attar.report.reading import Made, number, table, tables
from attar.report.study_tables.arranged import Column, Layout, Row
from attar.report.study_tables.layouts import LAYOUTS, TITLES


@dataclass(frozen=True)
class Grid:
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Study:
    name: str
    study: str
    title: str
    model: str
    facts: tuple[tuple[str, Any], ...]
    grids: tuple[Grid, ...]
    content: Mapping[str, Any]
    """Content of study.json, for pictures."""

    @property
    def rows(self) -> Sequence[Row]:
        return rows_of(self.content)


def rows_of(content: Mapping[str, Any], name: str = "rows") -> Sequence[Row]:
    """The rows of one of a study's tables; empty if it is missing."""
    return tables(content.get(name))


def studies(made: Sequence[Made]) -> tuple[Study, ...]:
    return tuple(_study(step) for step in made if step.run == "analyze" and step.study)


def _study(step: Made) -> Study:
    content, kind = step.study, str(step.study.get("study", ""))
    facts = table(content.get("facts"))
    layouts = LAYOUTS.get(kind, ())
    grids = [_grid(layout, rows_of(content, layout.table), facts) for layout in layouts]
    return Study(
        name=step.name,
        study=kind,
        title=TITLES.get(kind, kind),
        model=step.parent or "",
        facts=tuple(
            (words, _fact(name, value, facts))
            for name, given in facts.items()
            for words, value in _by_model(name.replace("_", " "), given)
            if not isinstance(value, list | dict)
        ),
        grids=tuple(grid for grid in grids if grid.rows),
        content=content,
    )


def _by_model(words: str, given: Any) -> Sequence[tuple[str, Any]]:
    """Name and value of a fact, or one for each model if there are several.

    Example:
        >>> _by_model("tokens", 9), _by_model("tokens of", {"teacher": 9, "student": 8})
        ([('tokens', 9)], [('tokens of teacher', 9), ('tokens of student', 8)])
    """
    if not isinstance(given, dict):
        return [(words, given)]
    return [(f"{words} {model}", value) for model, value in given.items()]


def _fact(name: str, value: Any, facts: Row) -> Any:
    if name in ("float", "quantized"):
        return metric_text(str(facts.get("metric", "")), number(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value


def _grid(layout: Layout, rows: Sequence[Row], facts: Row) -> Grid:
    columns = layout.columns
    if layout.arrange is not None:
        more, rows = layout.arrange(rows, facts)
        columns = (*columns, *more)
    metric = str(facts.get("metric", ""))
    columns = tuple(
        Column(c.key, metric or c.head, c.form) if c.head == "metric" else c for c in columns
    )
    cells = tuple(tuple(_cell(c, row.get(c.key), metric) for c in columns) for row in rows)
    return Grid(layout.caption, columns, cells)


def _cell(column: Column, value: Any, metric: str) -> str:
    if column.form == "list":
        return ", ".join(map(str, value)) if isinstance(value, list) and value else "none"
    if not column.is_number:
        return DASH if value is None else str(value)
    known = number(value)
    if known is None:
        return DASH
    forms: Mapping[str, Callable[[float], str]] = {
        "percent": lambda share: f"{share * 100:.1f}",
        "percent4": lambda share: f"{share * 100:.2f}",
        "points": lambda change: fixed_text(change * 100, 2, is_signed=True),
        "change": lambda change: fixed_text(change * 100, 1, is_signed=True),
        "metric": lambda quality: metric_text(metric, quality),
        "ratio": lambda ratio: ratio_text(ratio),
    }
    return forms.get(column.form, number_text)(known)
