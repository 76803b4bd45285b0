"""Bootstrap intervals of metrics, and paired comparisons of models.

The bootstrap repeatedly draws N of the N rows with replacement and computes the metric. Two models
are compared on the *same* resamples: rows that are difficult for both cancel in the difference, so
a paired interval is much narrower than the two separate intervals suggest.

    resample r: metric_r(A) − metric_r(B),   interval = [2.5 %, 97.5 %] quantiles over r

Intervals are percentile intervals, not BCa: for two models with equal predictions the difference is
always 0 and the interval must be [0, 0], where BCa divides 0 by 0; and its skewness correction, of
order 1/√N, is negligible here. If all rows are correct, all resamples are too; the interval of a
mean over rows then ends at the exact binomial limit for n rows (`most_unseen`).
`scipy.stats.bootstrap` is the reference in the tests; it is slower and an optional dependency.

Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attar.numerics.metrics import (
    COLUMNS,
    METRICS_OF_COUNTS,
    accuracy_of_counts,
    mean_of_counts,
    require_finite,
)

Floats = NDArray[np.float64]
LEVEL = 0.95
"""Coverage of all two-sided intervals."""
CHUNK_CELLS = 2**18
"""Number of counts in memory: 2 MiB fit in the cache; with 8 MiB, Spearman takes 1.5 × as long."""


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float
    n: int
    """Number of rows."""

    @property
    def entry(self) -> dict[str, Any]:
        """The interval as results store it."""
        return {"value": self.value, "ci95": [self.low, self.high], "n": self.n}


@dataclass(frozen=True)
class Difference(Interval):
    """Difference of two models on the same rows; positive if the first is better."""

    @property
    def within_noise(self) -> bool:
        """Whether the interval contains 0, so that it is not known which model is better."""
        return self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class Bootstrapped:
    """One metric of one model, on the data and on resamples."""

    value: float
    resampled: Floats
    """Values on the resamples, (R,)."""
    draw: tuple[str, int, int, int]
    """Metric, rows, resamples, seed. If equal, the resamples have the same rows and can be
    paired."""


@dataclass(frozen=True)
class Spread:
    """Statistics over several runs."""

    mean: float
    sd: float | None
    """Sample standard deviation (n − 1 in the denominator); None for a single run."""
    max: float
    n: int


def resample_counts(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield chunks of resamples: the number of times that each row is drawn, (r, rows); each
    resample sums to `rows`."""
    generator = np.random.default_rng(seed)
    per_chunk = max(1, CHUNK_CELLS // rows)
    for start in range(0, resamples, per_chunk):
        size = min(per_chunk, resamples - start)
        drawn = generator.integers(0, rows, size=(size, rows))
        drawn += np.arange(size)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=size * rows)
        yield counts.reshape(size, rows).astype(np.float64)


def bootstrap(
    metric: str,
    predictions: Mapping[str, ArrayLike],
    labels: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Bootstrapped]:
    """Compute one metric of several models on the same resamples of the same rows.

    Args:
        metric: a name in `METRICS`.
        predictions: model name → predictions (N,), or other inputs of the metric per row, in the
            order of `labels`; label sets are (N, C).
        resamples: number of resamples; with 2,000, the level of a quantile is accurate to about
            0.2 %.
    Raises:
        NonFiniteError: a prediction is NaN or infinite.
    """
    labelled = np.asarray(labels)
    predicted = {name: np.asarray(values) for name, values in predictions.items()}
    _check_shapes(predicted, labelled, COLUMNS.get(metric, ()))
    for name, values in predicted.items():
        require_finite(values, f"model {name!r}")
    of_counts = METRICS_OF_COUNTS[metric]
    rows = len(labelled)
    chunks: dict[str, list[Floats]] = {name: [] for name in predicted}
    for counts in resample_counts(rows, resamples, seed):
        for name, values in predicted.items():
            chunks[name].append(of_counts(values, labelled, counts))
    once = np.ones((1, rows))
    draw = (metric, rows, resamples, seed)
    return {
        name: Bootstrapped(
            float(of_counts(values, labelled, once)[0]), np.concatenate(chunks[name]), draw
        )
        for name, values in predicted.items()
    }


def mean_of(metrics: Sequence[Bootstrapped], name: str) -> Bootstrapped:
    """Unweighted mean of metrics of one model on different rows.

    Args:
        metrics: with the same number of resamples, drawn with different seeds: with the same seed,
            unrelated rows of two datasets of equal size would be drawn together.
        name: name of the mean; means with the same name can be paired.
    """
    rows = sum(one.draw[1] for one in metrics)
    _, _, resamples, seed = metrics[0].draw
    return Bootstrapped(
        float(np.mean([one.value for one in metrics])),
        np.mean([one.resampled for one in metrics], axis=0),
        (name, rows, resamples, seed),
    )


def bootstrap_interval(one: Bootstrapped) -> Interval:
    """The percentile interval of one model's metric.

    If all rows are equal, all resamples are too. Then at most a share of `most_unseen` of all rows
    is different, which bounds a mean of values from 0 to 1. (Wilson's interval is wider: a model
    without errors would have a wider interval than the bootstrap gives a model with one error.) For
    other metrics, such as F1, there is no bound, and the interval has zero width.

    Example:
        >>> right = np.ones(120)
        >>> found = bootstrap_interval(bootstrap("accuracy", {"a": right}, right)["a"])
        >>> round(found.low, 3), found.high
        (0.975, 1.0)
    """
    metric, rows, *_ = one.draw
    low, high = percentiles(one.resampled)
    mean = METRICS_OF_COUNTS.get(metric, mean_of_counts)  # means over tasks have names of tasks
    if low == high and mean in (accuracy_of_counts, mean_of_counts):
        unseen = most_unseen(rows)
        low, high = max(low - unseen, 0.0), min(high + unseen, 1.0)
    return Interval(one.value, low, high, rows)


def paired_bootstrap(model: Bootstrapped, against: Bootstrapped) -> Difference:
    """metric(model) − metric(against) on the same rows, with its percentile interval. Positive if
    `model` is better.

    Raises:
        ValueError: the resamples of the two are not of the same rows.
    """
    if model.draw != against.draw:
        raise ValueError(
            "a paired difference needs the same draws on both sides; "
            f"got {model.draw} and {against.draw}"
        )
    ends = percentiles(model.resampled - against.resampled)
    return Difference(model.value - against.value, *ends, model.draw[1])


def most_unseen(rows: int) -> float:
    """Upper limit of the share of an event that does not occur in `rows` rows.

    The exact binomial limit for 0 of n is 1 − (1 − LEVEL)^(1/n), about 3/n at 95 % (the rule of
    three).

    Example:
        >>> round(most_unseen(120), 4)
        0.0247
    """
    return float(1.0 - (1.0 - LEVEL) ** (1.0 / rows))


def none_seen(rows: int, what: str = "rows") -> str:
    """Statement about an event that does not occur in n rows, where the bootstrap gives [0, 0].

    Example:
        >>> none_seen(120)
        'with 95 % confidence, fewer than 2.5 % of all rows differ'
    """
    most = 100 * most_unseen(rows)
    return f"with {100 * LEVEL:.0f} % confidence, fewer than {most:.2g} % of all {what} differ"


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation, maximum and number of runs that differ only in the seed.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        Spread(mean=2.0, sd=1.0, max=3.0, n=3)
    """
    if not values:
        raise ValueError("a spread needs at least one value")
    array = np.asarray(values, dtype=np.float64)
    sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return Spread(float(array.mean()), sd, float(array.max()), len(array))


def percentiles(values: Floats) -> tuple[float, float]:
    """The ends of the central interval that contains a share `LEVEL` of the values."""
    tail = (1.0 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def _check_shapes(
    predictions: Mapping[str, NDArray[Any]], labels: NDArray[Any], columns: tuple[int, ...]
) -> None:
    """Raise ValueError if shapes differ. Args: columns: shape without the rows."""
    expected = (*labels.shape, *columns)
    shapes = {name: values.shape for name, values in predictions.items()}
    is_odd = labels.ndim not in (1, 2) or len(labels) == 0
    if is_odd or any(s != expected for s in shapes.values()):
        raise ValueError(
            "every model needs one prediction per row, and at least one row; "
            f"got labels of shape {labels.shape} and predictions {shapes}"
        )
