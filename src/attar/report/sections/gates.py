"""The recipe's gates with the measured values: met, missed, or not measured.

The engine checks gates after the last step; the report is written before that. Both use
`keeps_limits`, because two implementations could disagree: in floating point,
`0.79 >= 0.80 - 0.01` is true and `0.80 - 0.79 <= 0.01` is false. Equality with a limit counts as
met, with a tolerance for rounding:

    at least: value >= limit - TOLERANCE      at most: value <= limit + TOLERANCE
    max_drop: value >= reference - max_drop - TOLERANCE

The report reads the values from the same artifacts. For a step in a sweep, the mean over the runs
is used.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from attar.report.quantities import DASH, QUALITIES, metric_text, number_text, points_text
from attar.report.reading import Made, base_name, number, table

NO_VALUE = "without a value"
"""Shown for an undefined value, such as the accuracy of no rows, which fails every limit."""
TOLERANCE = 1e-9
"""Larger than rounding errors of a few additions, smaller than the effect of a single row."""


def keeps_limits(
    value: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    reference: float | None = None,
    max_drop: float | None = None,
) -> bool:
    """Whether `value` meets every given limit; NaN fails all.

    Args:
        reference: the reference value of `max_drop`; give both or neither.

    Example:
        >>> keeps_limits(0.79, reference=0.80, max_drop=0.01), keeps_limits(0.79, at_least=0.7901)
        (True, False)
    """
    floors = [] if at_least is None else [at_least]
    if reference is not None and max_drop is not None:
        floors.append(reference - max_drop)
    ceilings = [] if at_most is None else [at_most]
    return all(value >= floor - TOLERANCE for floor in floors) and all(
        value <= ceiling + TOLERANCE for ceiling in ceilings
    )


@dataclass(frozen=True)
class Gate:
    metric: str
    """Dotted path: step, model, metric."""
    measured: float | None
    """The measured value; NaN if it is undefined."""
    shown: str
    condition: str
    is_met: bool | None
    """None if the metric was not found in the artifacts."""


def gates(made: Sequence[Made], recipe: Mapping[str, Any]) -> tuple[Gate, ...]:
    listed = recipe.get("gates")
    if not isinstance(listed, list | tuple):
        return ()
    return tuple(_gate(made, table(settings)) for settings in listed)


def _gate(made: Sequence[Made], settings: Mapping[str, Any]) -> Gate:
    metric = str(settings.get("metric", ""))
    last = metric.rpartition(".")[2]
    measured = measured_value(made, metric)
    conditions: list[str] = []
    verdicts: list[bool | None] = []
    for name, words in (("at_least", "at least"), ("at_most", "at most")):
        if (limit := number(settings.get(name))) is not None:
            conditions.append(f"{words} {_shown(last, limit)}")
            verdicts.append(None if measured is None else keeps_limits(measured, **{name: limit}))
    if isinstance(of := settings.get("of"), str):
        allowed = number(settings.get("max_drop")) or 0.0
        reference = measured_value(made, of)
        known = "" if reference is None else f" ({_shown(last, reference)})"
        drop = points_text(allowed) if last in QUALITIES else number_text(allowed)
        conditions.append(f"at most {drop} below {of}{known}")
        verdicts.append(
            None
            if measured is None or reference is None
            else keeps_limits(measured, reference=reference, max_drop=allowed)
        )
    is_met = None if not verdicts or None in verdicts else all(verdicts)
    return Gate(metric, measured, _shown(last, measured), " and ".join(conditions), is_met)


def _shown(metric: str, value: float | None) -> str:
    if value is None:
        return DASH
    if math.isnan(value):
        return NO_VALUE
    return metric_text(metric, value) if metric in QUALITIES else number_text(value)


def measured_value(made: Sequence[Made], metric: str) -> float | None:
    """The number at a dotted path: a model's metric in an evaluation, or any metric of a step."""
    step_name, _, rest = metric.partition(".")
    steps = [step for step in made if step_name in (step.name, base_name(step.name))]
    values = [value for step in steps for value in _values_at(step.metrics, rest)]
    return mean(values) if values else None


def _values_at(metrics: Mapping[str, Any], rest: str) -> list[float]:
    models = table(metrics.get("models"))
    owners = [name for name in models if rest.startswith((f"{name}.", f"{base_name(name)}."))]
    if owners:
        longest = max(len(base_name(name)) for name in owners)
        chosen = [name for name in owners if rest.startswith(f"{name}.")] or [
            name for name in owners if len(base_name(name)) == longest
        ]
        found = [_descend(models[name], rest[len(_matched(name, rest)) + 1 :]) for name in chosen]
    else:
        found = [_descend(metrics, rest)]
    return [value for value in found if value is not None]


def _matched(name: str, rest: str) -> str:
    return name if rest.startswith(f"{name}.") else base_name(name)


def longest_name(names: Container[str], parts: Sequence[str]) -> str | None:
    """The first name of a dotted path, by longest match, because names of classes or a threshold
    such as 99.5 % can contain a dot."""
    joined = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in joined if name in names), None)


def _descend(content: Any, dotted: str) -> float | None:
    """The number at a path within `content`; None if it does not exist, NaN if it is undefined."""
    parts = dotted.split(".")
    while parts:
        inside = table(content)
        name = longest_name(inside, parts)
        if name is None:
            return None
        content, parts = inside[name], parts[name.count(".") + 1 :]
    if isinstance(content, Mapping):
        content = content.get("value")
    return math.nan if content is None else number(content)
