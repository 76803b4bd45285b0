"""What a study finds: tables for the report, figures for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Plain data throughout."""

    facts: Mapping[str, Any]
    """Under what conditions it was found: examples, bits, the metric, the float model's value."""
    tables: Mapping[str, Sequence[Row]]
    """Name → rows, in the order they are shown; the main one is called "rows"."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What a gate or another program may want; beside the facts, which are metrics too."""
