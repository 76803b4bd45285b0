"""Result of a study: tables for the report, and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Plain data throughout."""

    facts: Mapping[str, Any]
    """Conditions of the study: number of examples, bits, metric, value of the float model."""
    tables: Mapping[str, Sequence[Row]]
    """Name → rows, in display order; the main table is "rows"."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Metrics for gates and other programs, in addition to the facts."""
