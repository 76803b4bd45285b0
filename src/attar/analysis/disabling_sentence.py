"""What the study `disabling` found, in words that claim no more than its figures do."""

from __future__ import annotations

from math import inf, isfinite

from attar.numerics.damage import Damage
from attar.numerics.metric_names import LOWER_IS_BETTER
from attar.numerics.statistics import Difference


def disabling_sentence(word: str, damage: Damage, metric: str, count: str) -> str:
    """One sentence.

    Args:
        word: zero or mean.
        count: how many dimensions were disabled.
    """
    dimensions = "dimension" if count == "1" else "dimensions"
    choices = "choice" if damage.choices == 1 else "choices"
    parts = [
        f"{count} outlier {dimensions} set to {'zero' if word == 'zero' else 'their mean'} cost "
        f"{_size(damage.outlier, metric)}; as many others {_size(damage.null, metric)} on average "
        f"of {damage.choices} random {choices}",
        _ratio_words(damage),
        f"{damage.as_bad} of {damage.choices} choices damage as much (p = {damage.p_value:.2g}; "
        f"the smallest possible p with so few choices is {1 / (1 + damage.choices):.2g})",
    ]
    return "; ".join(parts) + "."


def _size(lost: Difference, metric: str) -> str:
    """A damage with its interval: points of a quality, or the metric's own unit."""
    factor, digits, unit = (
        (1, 3, "nats per token") if metric in LOWER_IS_BETTER else (100, 1, "points")
    )
    of_metric = "" if metric in ("accuracy", "nll") else f" of {metric}"
    ends = (factor * x for x in (lost.value, lost.low, lost.high))
    value, low, high = (f"{round(x, digits) + 0.0:.{digits}f}" for x in ends)  # no minus at zero
    return f"{value} {unit}{of_metric} (95 % interval {low} … {high})".replace("-", "−")


def _ratio_words(damage: Damage) -> str:
    ratio = damage.ratio
    if damage.outlier.within_noise:
        return "the outliers' own damage is inside the noise, so no ratio is claimed"
    least = f"at least {_digits(ratio.low)} times as much" if 0 < ratio.low < inf else ""
    if ratio.value is None:
        return f"the others do no damage on average, so there is no ratio{least and ', ' + least}"
    times = f"{_digits(ratio.value)} times as much"
    if isfinite(ratio.low) and isfinite(ratio.high):
        return f"{times} (95 % interval {_digits(ratio.low)} … {_digits(ratio.high)})"
    reason = "no upper bound: the others' damage is not significantly above 0"
    return f"{times} ({least and least + ', '}{reason})"


def _digits(value: float) -> str:
    """Two significant digits, a real minus.

    Example:
        >>> _digits(388.3), _digits(2.44), _digits(-0.41)
        ('390', '2.4', '−0.41')
    """
    return f"{float(f'{value:.2g}'):,g}".replace("-", "−")
