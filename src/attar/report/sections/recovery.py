"""Comparison of methods at equal FLOPs, from an extrapolate step with several models: training
losses, crossings with the first method, and the recovered share of the gap to a teacher.

Intervals of the curves are over seeds, or over blocks of one run's evaluations. If evaluate steps
of the same run include the methods, their results for the final models are shown too: bits per byte
of held-out text, with an interval over passages, and the zero-shot average over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from attar.numerics.metric_names import AVERAGES
from attar.report.quantities import count_text, metric_text, text_with_interval
from attar.report.reading import Made, ends_of, number, table
from attar.report.sections.extrapolation import LOSS, scientific

JUDGED = {"bits_per_byte": "bits per byte, held out", AVERAGES[0]: "zero-shot average"}
"""Metric of an evaluate step → its title."""
OUTSIDE = ("before the first evaluation", "beyond the last")
"""Text for ends of an interval outside the measured range."""


@dataclass(frozen=True)
class Measured:
    """One evaluation, with its 95 % interval."""

    tokens: float
    flops: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Judged:
    """Result of an evaluate step for a method's final model; for several seeds the mean, with
    minimum and maximum instead of an interval."""

    value: float
    low: float
    high: float

    def text(self, metric: str) -> str:
        return text_with_interval(metric, self.value, self.low, self.high)


@dataclass(frozen=True)
class MethodCurve:
    name: str
    measured: tuple[Measured, ...]
    tokens: str
    flops: str
    end: str
    """Loss at the last evaluation."""
    crossing: str
    """Where it crosses the first method; "" for the first method."""
    recovered: str
    """Recovered share of the gap between the first method and the teacher; "" without a teacher."""
    judged: Mapping[str, Judged]
    """Metric of `JUDGED` → result of an evaluate step, if measured."""


@dataclass(frozen=True)
class Recovery:
    name: str
    against: str
    teacher: str
    """Loss of the teacher; "" without a teacher."""
    interval: str
    """What the intervals are over."""
    methods: tuple[MethodCurve, ...]

    @property
    def judged(self) -> dict[str, str]:
        """Metric → title, for metrics that were evaluated for some method."""
        found = {metric for method in self.methods for metric in method.judged}
        return {metric: title for metric, title in JUDGED.items() if metric in found}


def recoveries(made: Sequence[Made]) -> tuple[Recovery, ...]:
    """Every extrapolate step that compares models, in the recipe's order."""
    judged = _judged_models(made)
    found = (_recovery(step, judged) for step in made if step.run == "extrapolate")
    return tuple(each for each in found if len(each.methods) > 1)


def _judged_models(made: Sequence[Made]) -> dict[str, dict[str, Judged]]:
    """Metric → model → result of evaluate steps."""
    found: dict[str, dict[str, Judged]] = {metric: {} for metric in JUDGED}
    for step in made:
        if step.run != "evaluate":
            continue
        for model, figures in table(step.metrics.get("models")).items():
            for metric in JUDGED:
                content = table(table(figures).get(metric))
                value, (low, high) = number(content.get("value")), ends_of(content.get("ci95"))
                if value is not None and low is not None and high is not None:
                    found[metric].setdefault(model, Judged(value, low, high))
    return found


def _judged(name: str, by_model: Mapping[str, Judged]) -> Judged | None:
    """Result of one method, whose name is that of its run, or of its runs joined by " + "."""
    runs = name.split(" + ")
    known = [by_model[run] for run in runs if run in by_model]
    if len(known) < len(runs):
        return None
    if len(known) == 1:
        return known[0]
    values = [run.value for run in known]
    return Judged(mean(values), min(values), max(values))


def _recovery(step: Made, judged: Mapping[str, Mapping[str, Judged]]) -> Recovery:
    content = table(step.metrics.get("recovery"))
    against = str(content.get("against", ""))
    methods = tuple(
        _method(name, table(found), table(step.extrapolated.get(name)), against, judged)
        for name, found in table(content.get("methods")).items()
    )
    laws = table(step.metrics.get("models")).values()
    seeds = min((len(table(law).get("runs", ())) for law in laws), default=0)
    teacher = number(content.get("teacher"))
    return Recovery(
        name=step.name,
        against=against,
        teacher="" if teacher is None else metric_text(LOSS, teacher),
        interval=f"over {seeds} seeds" if seeds > 1 else "over blocks of consecutive evaluations",
        methods=tuple(method for method in methods if method.measured),
    )


def _method(
    name: str,
    found: Mapping[str, Any],
    drawn: Mapping[str, Any],
    against: str,
    judged: Mapping[str, Mapping[str, Judged]],
) -> MethodCurve:
    value, low, high = (number(found.get(each)) or 0.0 for each in ("value", "low", "high"))
    closed = table(found.get("recovered"))
    return MethodCurve(
        name=name,
        measured=tuple(_measured(drawn.get("measured", ()))),
        tokens=count_text(number(found.get("tokens")) or 0.0),
        flops=scientific(number(found.get("flops"))),
        end=text_with_interval(LOSS, value, low, high),
        crossing="" if name == against else _crossing(table(found.get("crossing")), against),
        recovered=_share(closed) if closed else "",
        judged={
            metric: at_end
            for metric, by_model in judged.items()
            if (at_end := _judged(name, by_model)) is not None
        },
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
