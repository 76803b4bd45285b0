"""Embedding models: similarity of their vectors to the first model's, and truncated vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import DASH, metric_text, number_text, share_text
from attar.report.reading import Made, number, table


@dataclass(frozen=True)
class VectorRow:
    model: str
    figures: tuple[str, ...]
    """Mean and worst cosine, shared neighbours; then the metric at each width."""


@dataclass(frozen=True)
class VectorTable:
    step: str
    against: str
    """The first model."""
    metric: str
    widths: tuple[str, ...]
    rows: tuple[VectorRow, ...]


def vector_tables(made: Sequence[Made]) -> tuple[VectorTable, ...]:
    """One table for each evaluate step with additional figures about vectors."""
    found = (_table(step) for step in made if step.run == "evaluate")
    return tuple(each for each in found if each is not None)


def _table(step: Made) -> VectorTable | None:
    models = {name: table(figures) for name, figures in table(step.metrics.get("models")).items()}
    if not any(figures.get("agreement") or figures.get("widths") for figures in models.values()):
        return None
    metrics = table(step.metrics.get("data")).get("metrics")
    metric = str(metrics[0]) if isinstance(metrics, list) and metrics else ""
    widths = tuple(dict.fromkeys(w for each in models.values() for w in table(each.get("widths"))))
    rows = tuple(VectorRow(name, _figures(each, metric, widths)) for name, each in models.items())
    return VectorTable(step.name, next(iter(models)), metric, widths, rows)


def _figures(model: Mapping[str, Any], metric: str, widths: Sequence[str]) -> tuple[str, ...]:
    agreement, cut = table(model.get("agreement")), table(model.get("widths"))
    cosines = (number_text(number(agreement.get(name)), 4) for name in ("cosine", "worst_cosine"))
    overlap = number(agreement.get("neighbour_overlap"))
    values = (metric_text(metric, number(table(cut.get(width)).get(metric))) for width in widths)
    return (*cosines, DASH if overlap is None else share_text(overlap, 1), *values)
