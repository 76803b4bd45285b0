"""Differences between models, each with a sentence in plain language.

Every model is compared with the first one (total loss) and with the previous one (loss of this
step), on the same rows. If the interval contains 0, no difference was found.

    int8 is 2.1 points below student (95 % interval 0.4 to 3.6, n = 1,104).
    no difference was found between int8 and student (int8 minus student: −0.4 points, 95 % interval
    −1.1 to 0.3, n = 1,104).

A point is a hundredth of a metric, as in GLUE. Language model metrics have their own units, and for
them lower is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attar.numerics.metric_names import LANGUAGE, METRIC_NAMES
from attar.numerics.statistics import Bootstrapped, Difference, none_seen, paired_bootstrap

LANGUAGE_UNITS = {
    "nll": "nats per token",
    "perplexity": "of perplexity",
    "bits_per_byte": "bits per byte",
}
FINE = 0.02
"""Intervals of language metrics narrower than this are given with four decimals."""
NARROW_POINTS = 0.5
"""Intervals narrower than this are given with two decimals, since one would hide them."""
MOST_DECIMALS = 8
MINUS = "\N{MINUS SIGN}"


def differences(
    models: Sequence[str], metrics: Mapping[str, Mapping[str, Bootstrapped]]
) -> list[dict[str, Any]]:
    """Compare every model with the first and the previous one, for every metric, as plain data."""
    found: list[dict[str, Any]] = []
    for place, model in enumerate(models[1:], start=1):
        for against in dict.fromkeys([models[0], models[place - 1]]):
            for metric, values in metrics.items():
                difference = paired_bootstrap(values[model], values[against])
                found.append(
                    {
                        "model": model,
                        "against": against,
                        "metric": metric,
                        **difference.entry,
                        "within_noise": difference.within_noise,
                        "sentence": sentence(model, against, metric, difference),
                    }
                )
    return found


def sentence(model: str, against: str, metric: str, difference: Difference) -> str:
    """Describe a difference in words.

    If the interval excludes 0, the sentence gives the size of the difference and its interval as
    positive numbers, in the direction that it names. Otherwise the figures are `model` minus
    `against`.

    Example:
        >>> sentence("int8", "student", "accuracy", Difference(-0.021, -0.036, -0.004, 1104))
        'int8 is 2.1 points below student (95 % interval 0.4 to 3.6, n = 1,104).'
    """
    is_language = metric in LANGUAGE
    scale = 1 if is_language else 100
    value, low, high = (scale * x for x in (difference.value, difference.low, difference.high))
    rows = f"n = {difference.n:,}" + (" passages" if is_language else "")
    of_metric = "" if is_language or metric == "accuracy" else metric
    if not is_language and low == value == high == 0:
        return (
            f"{_none_found(model, against, of_metric)} on {rows} rows; {none_seen(difference.n)}."
        )
    is_clear = not low <= 0 <= high
    decimals = _decimals(low, high, is_language, is_clear)
    if not is_clear:
        found = _signed(value, decimals)
        interval = f"{_signed(low, decimals)} to {_signed(high, decimals)}"
        unit = LANGUAGE_UNITS.get(metric) or _points(found)
        return (
            f"{_none_found(model, against, of_metric)} ({model} minus {against}: {found} {unit}, "
            f"95 % interval {interval}, {rows})."
        )
    size = f"{abs(value):.{decimals}f}"
    nearest, farthest = sorted((abs(low), abs(high)))
    interval = f"95 % interval {nearest:.{decimals}f} to {farthest:.{decimals}f}"
    if is_language:
        side = "worse" if value > 0 else "better"
        claim = f"{model} is {side} than {against} by {size} {LANGUAGE_UNITS[metric]}"
    else:
        of, on = ("", f" on {metric}") if metric not in METRIC_NAMES else (of_metric, "")
        unit = _points(size) + (f" of {of}" if of else "")
        claim = f"{model} is {size} {unit} {'above' if value > 0 else 'below'} {against}{on}"
    return f"{claim} ({interval}, {rows})."


def _none_found(model: str, against: str, metric: str) -> str:
    link = "in" if metric in METRIC_NAMES else "on"  # a task, or the average of some
    in_metric = f" {link} {metric}" if metric else ""
    return f"no difference{in_metric} was found between {model} and {against}"


def _decimals(low: float, high: float, is_language: bool, is_clear: bool) -> int:
    """Number of decimals for the width of the interval; a clear interval must not start at 0."""
    if is_language:
        decimals = 4 if high - low < FINE else 3
    else:
        decimals = 2 if high - low < NARROW_POINTS else 1
    nearest = min(abs(low), abs(high))
    while is_clear and decimals < MOST_DECIMALS and float(f"{nearest:.{decimals}f}") == 0:
        decimals += 1
    return decimals


def _points(number: str) -> str:
    return "point" if float(number.replace(MINUS, "")) == 1 else "points"


def _signed(number: float, decimals: int) -> str:
    """Format with a minus sign (−), and no sign for zero."""
    text = f"{abs(number):.{decimals}f}"
    return MINUS + text if number < 0 and float(text) else text
