"""The recipe's gates with the measured values: met, missed, or not measured.

The engine checks gates after the last step; the report is written before that. Both use
`keeps_limits`, because two implementations could disagree: in floating point,
`0.79 >= 0.80 - 0.01` is true and `0.80 - 0.79 <= 0.01` is false. Equality with a limit counts as
met, with a tolerance for rounding:

    at least: value >= limit - TOLERANCE      at most: value <= limit + TOLERANCE
    max_drop: value >= reference - max_drop - TOLERANCE

The report reads the values from the same artifacts. For a step in a sweep, the mean over the runs
is used.

A gate is judged by the value alone. If the 95 % interval reaches the limit of a met gate, other
texts could miss it, and the report says so (`Doubt`). The interval is the model's own for at_least
and at_most, and that of the paired difference for max_drop; a sweep has none.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from attar.data.config import USUAL_SHARE
from attar.report.quantities import (
    DASH,
    QUALITIES,
    SHOWN_AS_PERCENT,
    difference_figures,
    interval_text,
    metric_text,
    number_text,
    points_text,
    sample_text,
)
from attar.report.reading import Made, base_name, ends_of, number, table, whole
from attar.report.sections.measured import Difference, differences_of

NO_VALUE = "without a value"
"""Shown for an undefined value, such as the accuracy of no rows, which fails every limit."""
MISSING = object()
"""A path that does not exist."""
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
class Doubt:
    """Why the measured texts are too few to be sure of a met gate."""

    sentence: str
    advice: str


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
    doubt: Doubt | None = None
    """Only of a met gate."""


def gates(made: Sequence[Made], recipe: Mapping[str, Any]) -> tuple[Gate, ...]:
    listed = recipe.get("gates")
    if not isinstance(listed, list | tuple):
        return ()
    tables = [table(settings) for settings in listed]
    return tuple(_with_doubt(_gate(made, each), each, made, recipe) for each in tables)


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


def _with_doubt(
    gate: Gate, settings: Mapping[str, Any], made: Sequence[Made], recipe: Mapping[str, Any]
) -> Gate:
    name, _, path = gate.metric.partition(".")
    steps = [step for step in made if name in (step.name, base_name(step.name))]
    if not gate.is_met or len(steps) != 1:
        return gate
    why = _reached(steps[0], path, settings) or _drop_reached(steps[0], path, settings)
    if not why:
        return gate
    return replace(gate, doubt=Doubt(why, _for_more_texts(steps[0], recipe)))


def _reached(step: Made, path: str, settings: Mapping[str, Any]) -> str:
    """The limit that the model's own interval reaches; "" for none."""
    contents = _contents_at(step.metrics, path)
    found = table(contents[0]) if len(contents) == 1 else {}
    (low, high), count = ends_of(found.get("ci95")), whole(found.get("n"))
    if low is None or high is None or not count:
        return ""
    last = path.rpartition(".")[2]
    least, most = (number(settings.get(name)) for name in ("at_least", "at_most"))
    if least is not None and low <= least + TOLERANCE:
        limit = least
    elif most is not None and high >= most - TOLERANCE:
        limit = most
    else:
        return ""
    ends = interval_text(last, low, high) or _shown(last, low)
    return (
        f"{sample_text(last, count)} cannot tell for sure: the 95 % interval of {path} ({ends}) "
        f"reaches the limit of {_shown(last, limit)}"
    )


def _drop_reached(step: Made, path: str, settings: Mapping[str, Any]) -> str:
    """How far the interval of the paired difference goes beyond `max_drop`; "" if it does not."""
    of_step, _, against = str(settings.get("of", "")).partition(".")
    allowed = number(settings.get("max_drop")) or 0.0
    pairs = differences_of(step.metrics.get("differences"), {})
    for pair in pairs if of_step in (step.name, base_name(step.name)) else ():
        metric = pair.metric
        if (path, against) == (f"{pair.model}.{metric}", f"{pair.against}.{metric}"):
            return _beyond(pair, allowed)
    return ""


def _beyond(pair: Difference, allowed: float) -> str:
    from attar.numerics.statistics import most_unseen  # numpy, which `attar check` does without

    metric, count = pair.metric, pair.count
    if pair.low is None or pair.high is None or not count:
        return ""
    drop = points_text(allowed) if metric in QUALITIES else number_text(allowed)
    if pair.no_difference_on and metric in SHOWN_AS_PERCENT and most_unseen(count) >= allowed:
        share = f"{100 * most_unseen(count):.2g} % of all texts (95 % confidence)"
        why = f"the two models do not differ on any of them, but may on up to {share}; "
        why += f"the allowed drop is {drop}"
    elif pair.low > TOLERANCE - allowed:
        return ""
    else:
        ends, unit = difference_figures(metric, pair.low, pair.high)
        why = f"the 95 % interval of the difference to {pair.against} ({' to '.join(ends)}{unit}) "
        why += f"reaches the allowed drop of {drop}"
    return f"{sample_text(metric, count)} cannot tell for sure: {why}"


def _for_more_texts(step: Made, recipe: Mapping[str, Any]) -> str:
    """Which setting gives the evaluation more texts."""
    data = table(step.metrics.get("data"))
    name, split = str(data.get("name", "")), str(data.get("split", "validation"))
    settings = table(table(recipe.get("data")).get(name))
    share, is_held_out = number(settings.get("validation_share")), split == "validation"
    how = f"Data {name!r} needs a larger {split} split"
    if (rows := number(settings.get(f"{split}_rows"))) is not None:
        how = f"Raise {split}_rows (now {rows:g}) in [data.{name}]"
    elif is_held_out and share not in (None, USUAL_SHARE):
        how = f"Raise validation_share (now {share:g}) in [data.{name}], which takes rows from "
        how += "train, or add rows to its file"  # a validation file would have been refused
    elif "path" in settings and split in settings:
        how = f"Add rows to the {split} file of [data.{name}]"
        if is_held_out and settings[split] is None:
            how += f", or, if there is none, raise validation_share (now {USUAL_SHARE:g}), which "
            how += "takes rows from train"
    return f"more texts to evaluate on: four times as many halve the interval. {how}."


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
    contents = [content for step in steps for content in _contents_at(step.metrics, rest)]
    values = [value for content in contents if (value := _value(content)) is not None]
    return mean(values) if values else None


def _contents_at(metrics: Mapping[str, Any], rest: str) -> list[Any]:
    """What stands at a path: a number, None if it is undefined, or a table with its value; one for
    each model of a sweep."""
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
    return [content for content in found if content is not MISSING]


def _matched(name: str, rest: str) -> str:
    return name if rest.startswith(f"{name}.") else base_name(name)


def longest_name(names: Container[str], parts: Sequence[str]) -> str | None:
    """The first name of a dotted path, by longest match, because names of classes or a threshold
    such as 99.5 % can contain a dot."""
    joined = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in joined if name in names), None)


def _descend(content: Any, dotted: str) -> Any:
    """What stands at a path within `content`, or MISSING."""
    parts = dotted.split(".")
    while parts:
        inside = table(content)
        name = longest_name(inside, parts)
        if name is None:
            return MISSING
        content, parts = inside[name], parts[name.count(".") + 1 :]
    return content


def _value(content: Any) -> float | None:
    """Its number; NaN if it is undefined, None if it is not a number."""
    if isinstance(content, Mapping):
        content = content.get("value")
    return math.nan if content is None else number(content)
