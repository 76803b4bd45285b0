"""What the study `disabling` found, in words that claim no more than its figures do."""

from __future__ import annotations

from math import isfinite

from attar.numerics.damage import Damage
from attar.numerics.metrics import LOWER_IS_BETTER
from attar.numerics.statistics import Difference


def sentence(word: str, damage: Damage, metric: str, count: str) -> str:
    """One sentence.

    Args:
        word: zero or mean.
        count: how many dimensions were disabled.
    """
    put = "zero" if word == "zero" else "their mean"
    parts = [
        f"{count} outlier dimensions set to {put} cost {_size(damage.outlier, metric)}; "
        f"as many others {_size(damage.null, metric)} on average of {damage.choices} random "
        f"{'choice' if damage.choices == 1 else 'choices'}",
        _ratio_words(damage),
        f"{damage.as_bad} of {damage.choices} choices damage as much (p = {damage.p_value:.2g}, at "
        f"least {1 / (1 + damage.choices):.2g} by their number)",
    ]
    return "; ".join(parts) + "."


def _size(lost: Difference, metric: str) -> str:
    """A damage with its interval: points of a quality, or the metric's own unit."""
    factor, digits, unit = (
        (1, 3, "nats a token") if metric in LOWER_IS_BETTER else (100, 1, "points")
    )
    of_metric = "" if metric in ("accuracy", "nll") else f" of {metric}"
    value, low, high = (f"{factor * x:.{digits}f}" for x in (lost.value, lost.low, lost.high))
    return f"{value} {unit}{of_metric} (95 % interval {low} … {high})".replace("-", "−")


def _ratio_words(damage: Damage) -> str:
    ratio = damage.ratio
    if damage.outlier.within_noise:
        return "the outliers' own damage is inside the noise, so no ratio is claimed"
    if ratio.value is None:
        return "the others do no damage, so there is no ratio"
    times = f"{ratio.value:.3g} times as much"
    if isfinite(ratio.low) and isfinite(ratio.high):
        return f"{times} (95 % interval {ratio.low:.2g} … {ratio.high:.3g})".replace("-", "−")
    reason = "no upper end: the others' damage cannot be told from 0"
    least = f"at least {ratio.low:.2g}, " if isfinite(ratio.low) else ""
    return f"{times} ({least}{reason})".replace("-", "−")
