"""How methods compare at equal FLOPs: their losses in training, where one overtakes the first, and
how much of the gap to a teacher each closes. Measured by an extrapolate step of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import count_text, interval_text, metric_text
from attar.report.reading import Made, number, table
from attar.report.sections.extrapolation import LOSS, scientific

OUTSIDE = ("before the first evaluation", "beyond the last")
"""Where an end of an interval is that lies outside what was measured."""


@dataclass(frozen=True)
class Measured:
    """One evaluation, with its 95 % interval."""

    tokens: float
    flops: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MethodCurve:
    """One method."""

    name: str
    measured: tuple[Measured, ...]
    tokens: str
    flops: str
    end: str
    """Its loss at its last evaluation."""
    crossing: str
    """Where it crosses the first method; "" for that one."""
    recovered: str
    """Share of the gap between the first method and the teacher; "": no teacher was named."""


@dataclass(frozen=True)
class Recovery:
    """One extrapolate step of several models."""

    name: str
    against: str
    teacher: str
    """Its loss; "": none was named."""
    interval: str
    """What the intervals are over."""
    methods: tuple[MethodCurve, ...]


def recoveries(made: Sequence[Made]) -> tuple[Recovery, ...]:
    """Every extrapolate step that compares models, in the recipe's order."""
    found = (_recovery(step) for step in made if step.run == "extrapolate")
    return tuple(each for each in found if len(each.methods) > 1)


def _recovery(step: Made) -> Recovery:
    content = table(step.metrics.get("recovery"))
    against = str(content.get("against", ""))
    methods = tuple(
        _method(name, table(found), table(step.extrapolated.get(name)), against)
        for name, found in table(content.get("methods")).items()
    )
    laws = table(step.metrics.get("models")).values()
    seeds = min((len(table(law).get("runs", ())) for law in laws), default=0)
    teacher = number(content.get("teacher"))
    return Recovery(
        name=step.name,
        against=against,
        teacher="" if teacher is None else metric_text(LOSS, teacher),
        interval=f"over {seeds} seeds" if seeds > 1 else "over blocks of neighbouring evaluations",
        methods=tuple(method for method in methods if method.measured),
    )


def _method(
    name: str, found: Mapping[str, Any], drawn: Mapping[str, Any], against: str
) -> MethodCurve:
    value, low, high = (number(found.get(each)) or 0.0 for each in ("value", "low", "high"))
    closed = table(found.get("recovered"))
    return MethodCurve(
        name=name,
        measured=tuple(_measured(drawn.get("measured", ()))),
        tokens=count_text(number(found.get("tokens")) or 0.0),
        flops=scientific(number(found.get("flops"))),
        end=f"{metric_text(LOSS, value)} ({interval_text(LOSS, low, high)})",
        crossing="" if name == against else _crossing(table(found.get("crossing")), against),
        recovered=_share(closed) if closed else "",
    )


def _share(found: Mapping[str, Any]) -> str:
    value, low, high = (
        metric_text("accuracy", number(found.get(each))) for each in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"


def _measured(lines: Sequence[Mapping[str, Any]]) -> list[Measured]:
    return [Measured(**{name: float(value) for name, value in line.items()}) for line in lines]


def _crossing(found: Mapping[str, Any], against: str) -> str:
    """Where a method crosses the first one, in words."""
    if not found:
        return "no common FLOPs"
    leads = bool(found.get("leads"))
    if found.get("compute") is None:
        return f"do not cross: {'ahead' if leads else 'behind'} at every evaluation"
    verb = f"overtakes {against}" if leads else f"overtaken by {against}"
    low, high = (
        outside if found.get(end) is None else scientific(number(found[end]))
        for end, outside in zip(("low", "high"), OUTSIDE, strict=True)
    )
    return f"{verb} at {scientific(number(found['compute']))} FLOPs ({low} to {high})"
