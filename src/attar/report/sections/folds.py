"""Folded models: cost of each part before and after, and the change of the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import count_text, number_text, ratio_text
from attar.report.reading import Made, number, table


@dataclass(frozen=True)
class PartRow:
    """One part of the model, or the whole model."""

    name: str
    figures: tuple[str, ...]
    """Parameters before, after and their ratio; operations before, after and their ratio."""


@dataclass(frozen=True)
class Fold:
    name: str
    what: str
    """Variant before and after."""
    facts: tuple[tuple[str, str], ...]
    tokens: str
    """Text length for counting operations."""
    parts: tuple[PartRow, ...]


def folds(made: Sequence[Made]) -> tuple[Fold, ...]:
    return tuple(_fold(step) for step in made if step.run == "fold")


def _fold(step: Made) -> Fold:
    variant, certificate = table(step.metrics.get("variant")), step.metrics.get("certificate")
    proof, parts = table(certificate), table(step.metrics.get("parts"))
    return Fold(
        name=step.name,
        what=f"{variant.get('from', '')} → {variant.get('to', '')}",
        facts=(
            ("blocks folded", number_text(number(step.metrics.get("folded")))),
            ("norms folded", number_text(number(step.metrics.get("norms_folded")))),
            ("largest difference of a logit", _limited(proof, "relative_difference")),
            ("largest error of a block, float64", _limited(proof, "block_error")),
            ("texts", number_text(number(proof.get("examples")))),
        ),
        tokens=number_text(number(step.metrics.get("tokens"))),
        parts=tuple(_rows(table(parts.get("before")), table(parts.get("after")))),
    )


def _limited(proof: Mapping[str, Any], name: str) -> str:
    """A relative difference with its limit."""
    value, limit = number(proof.get(name)), number(proof.get(f"max_{name}"))
    return "" if value is None or limit is None else f"{value:.1e} of the largest (≤ {limit:.0e})"


def _rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[PartRow]:
    names = [name for name in before if name in after]
    every = [(name, table(before[name]), table(after[name])) for name in names]
    if every:
        every.append(("all", _sum(before), _sum(after)))
    return [
        PartRow(name, (*_pair(a, b, "num_params"), *_pair(a, b, "flops"))) for name, a, b in every
    ]


def _sum(parts: Mapping[str, Any]) -> dict[str, float]:
    fields = ("num_params", "flops")
    return {f: sum(number(table(part).get(f)) or 0.0 for part in parts.values()) for f in fields}


def _pair(a: Mapping[str, Any], b: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    old, new = number(a.get(name)), number(b.get(name))
    return (
        count_text(old),
        count_text(new),
        ratio_text(new / old) if old and new is not None else "",
    )
