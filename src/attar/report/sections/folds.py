"""Folded models: cost of each part before and after, and the change of the outputs.

The runs of a sweep over seeds have equal parts and share a table, with the largest changes of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import count_text, number_text, ratio_text
from attar.report.reading import Made, number, table
from attar.report.sections.comparison import family_name


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
    groups: dict[str, list[Made]] = {}
    for step in made:
        if step.run == "fold":
            groups.setdefault(family_name(step.name), []).append(step)
    return tuple(_fold(name, runs) for name, runs in groups.items())


def _fold(name: str, runs: Sequence[Made]) -> Fold:
    step = runs[0]
    variant, parts = table(step.metrics.get("variant")), table(step.metrics.get("parts"))
    proofs = [table(run.metrics.get("certificate")) for run in runs]
    return Fold(
        name=name,
        what=f"{variant.get('from', '')} → {variant.get('to', '')}",
        facts=(
            ("blocks folded", number_text(number(step.metrics.get("folded")))),
            ("norms folded", number_text(number(step.metrics.get("norms_folded")))),
            ("largest difference of a logit", _limited(proofs, "relative_difference")),
            ("largest error of a block, float64", _limited(proofs, "block_error")),
            ("texts", number_text(number(proofs[0].get("examples")))),
            *([("runs", number_text(len(runs)))] if len(runs) > 1 else []),
        ),
        tokens=number_text(number(step.metrics.get("tokens"))),
        parts=tuple(_rows(table(parts.get("before")), table(parts.get("after")))),
    )


def _limited(proofs: Sequence[Mapping[str, Any]], name: str) -> str:
    """The largest of relative differences, with its limit."""
    limit = number(proofs[0].get(f"max_{name}"))
    values = [value for proof in proofs if (value := number(proof.get(name))) is not None]
    return f"{max(values):.1e} of the largest (≤ {limit:.0e})" if values and limit else ""


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
