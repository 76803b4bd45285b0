"""Differences between models, each with a sentence a person can read.

Every model is set against the first (what was lost in all) and against the one before it (what this
step cost), on the same rows, and a difference whose interval holds 0 is *called* inside the noise.

    int8 is 0.4 points below student (95 % interval −1.1 … +0.3, n = 1,104): inside the noise.

A point is a hundredth of any metric, as GLUE reports them; what a language model costs has units of
its own, and of those less is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attar.numerics.metric_names import LANGUAGE
from attar.numerics.statistics import Bootstrapped, Difference, none_seen, paired_bootstrap

LANGUAGE_UNITS = {
    "nll": "nats a token",
    "perplexity": "of perplexity",
    "bits_per_byte": "bits a byte",
}
FINE = 0.02
"""An interval of language metrics narrower than this is told with four decimals."""
NARROW_POINTS = 0.5
"""An interval narrower than this is told with two decimals: one would round it to nothing."""


def differences(
    models: Sequence[str], metrics: Mapping[str, Mapping[str, Bootstrapped]]
) -> list[dict[str, Any]]:
    """Every model against the first and against the one before, for every metric, as plain data."""
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
                        "value": difference.value,
                        "ci95": [difference.low, difference.high],
                        "n": difference.n,
                        "within_noise": difference.within_noise,
                        "sentence": sentence(model, against, metric, difference),
                    }
                )
    return found


def sentence(model: str, against: str, metric: str, difference: Difference) -> str:
    """What a difference means, in words.

    Example:
        >>> sentence("int8", "student", "accuracy", Difference(-0.004, -0.011, 0.003, 1104))
        'int8 is 0.4 points below student (95 % interval −1.1 … +0.3, n = 1,104): inside the noise.'
    """
    if metric in LANGUAGE:
        return _language_sentence(model, against, metric, difference)
    value, low, high = (100 * x for x in (difference.value, difference.low, difference.high))
    decimals = 2 if high - low < NARROW_POINTS else 1
    size = f"{abs(value):.{decimals}f}"
    of_metric = "" if metric == "accuracy" else f" of {metric}"
    if float(size) == 0:
        claim = f"{model} is level with {against}" + (f" in {metric}" if of_metric else "")
    else:
        unit = "point" if float(size) == 1 else "points"
        side = "above" if value > 0 else "below"
        claim = f"{model} is {size} {unit}{of_metric} {side} {against}"
    if low == value == high == 0:
        unseen = f"no difference on n = {difference.n:,} rows; {none_seen(difference.n)}"
        return f"{claim} ({unseen}): inside the noise."
    return _with_verdict(claim, low, high, decimals, f"n = {difference.n:,}")


def _language_sentence(model: str, against: str, metric: str, difference: Difference) -> str:
    value, low, high = difference.value, difference.low, difference.high
    decimals = 4 if high - low < FINE else 3
    size = f"{abs(value):.{decimals}f}"
    side = "worse" if value > 0 else "better"
    claim = f"{model} is {side} than {against} by {size} {LANGUAGE_UNITS[metric]}"
    if float(size) == 0:
        claim = f"{model} is level with {against} in {metric}"
    rows = f"n = {difference.n:,} passages, + is worse"
    return _with_verdict(claim, low, high, decimals, rows)


def _with_verdict(claim: str, low: float, high: float, decimals: int, rows: str) -> str:
    interval = f"{_signed(low, decimals)} … {_signed(high, decimals)}"
    verdict = "inside the noise" if low <= 0 <= high else "outside the noise"
    return f"{claim} (95 % interval {interval}, {rows}): {verdict}."


def _signed(points: float, decimals: int) -> str:
    """A number with its sign; a real minus, and no sign on zero."""
    text = f"{abs(points):.{decimals}f}"
    if float(text) == 0:
        return text
    return ("+" if points > 0 else "−") + text
