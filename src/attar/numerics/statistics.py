"""Is a difference between two models real, or inside the noise of a finite test set?

The bootstrap draws N of the N rows with replacement, again and again, and looks at how the metric
moves. Two models are compared on the *same* draws: a row that is hard for both moves both, and
cancels in the difference, so that a paired interval is much narrower than the two single ones
suggest.

    resample r: metric_r(A) − metric_r(B),   interval = [2.5 %, 97.5 %] quantiles over r

Percentile intervals, not BCa: for two models with equal predictions the difference is always 0 and
the interval must be [0, 0], where BCa divides 0 by 0; and its correction of skew, of order 1/√N, is
far below what is reported here. Rows without a single error resample to none: the interval of a
mean over rows then ends at the exact binomial limit of what n rows do not show (`most_unseen`).
`scipy.stats.bootstrap` serves as the reference in the tests; at run time it is slower, and an
optional dependency.

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
"""Two-sided coverage of every interval in a result."""
CHUNK_CELLS = 2**18
"""Counts held at a time: 2 MiB stay in a core's cache; with 8 MiB, Spearman takes 1.5 × as long."""


@dataclass(frozen=True)
class Interval:
    """A value with the range in which it would lie for `level` of test sets like this one."""

    value: float
    low: float
    high: float
    n: int
    """Rows after it."""


@dataclass(frozen=True)
class Difference(Interval):
    """How much better one model is than another on the same rows."""

    @property
    def within_noise(self) -> bool:
        """The interval holds 0: the data cannot tell which one is better."""
        return self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class Bootstrapped:
    """One metric of one model: on the data, and on every resample of one draw."""

    value: float
    resampled: Floats
    """(R,)."""
    draw: tuple[str, int, int, int]
    """Metric, rows, resamples, seed: equal means the same rows were drawn, so that two can be
    paired."""


@dataclass(frozen=True)
class Spread:
    """What several runs of one thing look like together."""

    mean: float
    sd: float | None
    """Sample standard deviation (n − 1 below); None for a single run, which says nothing about
    spread."""
    max: float
    n: int


def resample_counts(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn in each resample, a chunk of resamples at a time, (r, rows); each
    sums to `rows`."""
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
    """One metric of several models on the same resamples of the same rows.

    Args:
        metric: a name in `METRICS`.
        predictions: model name → (N,), or what else the metric reads of each row, in the order of
            `labels`; sets of labels are (N, C).
        resamples: how many; 2,000 leave about 0.2 % of a quantile's level to chance.
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
    """The mean of metrics of one model on different rows, each with weight 1, whatever its rows.

    Args:
        metrics: as many resamples each, drawn with seeds of their own: the same draw of two data
            sets with equally many rows would tie rows together that have nothing in common.
        name: of the mean; means of one name can be paired.
    """
    rows = sum(one.draw[1] for one in metrics)
    _, _, resamples, seed = metrics[0].draw
    return Bootstrapped(
        float(np.mean([one.value for one in metrics])),
        np.mean([one.resampled for one in metrics], axis=0),
        (name, rows, resamples, seed),
    )


def bootstrap_interval(one: Bootstrapped, level: float = LEVEL) -> Interval:
    """The percentile interval of one model's metric.

    Where all rows are alike, every resample is too. Other rows are then `most_unseen` of all rows
    at most, and so far, at most, lies a mean of rows that are 0 to 1. (Wilson's interval is wider:
    a model without an error would have a wider one than the bootstrap gives a model with one.) Of
    other metrics, such as F1, nothing is known then: the interval has no width.

    Example:
        >>> right = np.ones(120)
        >>> found = bootstrap_interval(bootstrap("accuracy", {"a": right}, right)["a"])
        >>> round(found.low, 3), found.high
        (0.975, 1.0)
    """
    metric, rows, *_ = one.draw
    low, high = percentiles(one.resampled, level)
    mean = METRICS_OF_COUNTS.get(metric, mean_of_counts)  # means of tasks are named by the tasks
    if low == high and mean in (accuracy_of_counts, mean_of_counts):
        unseen = most_unseen(rows, level)
        low, high = max(low - unseen, 0.0), min(high + unseen, 1.0)
    return Interval(one.value, low, high, rows)


def paired_bootstrap(
    model: Bootstrapped, against: Bootstrapped, level: float = LEVEL
) -> Difference:
    """metric(model) − metric(against) on the same rows, with its percentile interval; above 0,
    `model` is better.

    Raises:
        ValueError: the two were not drawn together, so that their resamples are of different rows.
    """
    if model.draw != against.draw:
        raise ValueError(
            "a paired difference needs the same draws on both sides; "
            f"got {model.draw} and {against.draw}"
        )
    ends = percentiles(model.resampled - against.resampled, level)
    return Difference(model.value - against.value, *ends, model.draw[1])


def most_unseen(rows: int, level: float = LEVEL) -> float:
    """The largest share that something may have of which `rows` rows show none.

    The exact binomial limit for 0 of n, 1 − (1 − level)^(1/n), about 3/n at 95 % (the rule of
    three).

    Example:
        >>> round(most_unseen(120), 4)
        0.0247
    """
    return float(1.0 - (1.0 - level) ** (1.0 / rows))


def none_seen(rows: int, what: str = "rows") -> str:
    """What was not seen in n rows may still happen: the bootstrap's [0, 0] would hide that.

    Example:
        >>> none_seen(120)
        'with 95 % confidence, fewer than 2.5 % of all rows differ'
    """
    most = 100 * most_unseen(rows)
    return f"with {100 * LEVEL:.0f} % confidence, fewer than {most:.2g} % of all {what} differ"


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation, maximum and number of runs that differ in their seed alone.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        Spread(mean=2.0, sd=1.0, max=3.0, n=3)
    """
    if not values:
        raise ValueError("a spread needs at least one value")
    array = np.asarray(values, dtype=np.float64)
    sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return Spread(float(array.mean()), sd, float(array.max()), len(array))


def percentiles(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The ends between which this share of the values lies, as many below as above."""
    tail = (1.0 - level) / 2
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def _check_shapes(
    predictions: Mapping[str, NDArray[Any]], labels: NDArray[Any], columns: tuple[int, ...]
) -> None:
    """Raise where they differ. Args: columns: beside the rows."""
    expected = (*labels.shape, *columns)
    shapes = {name: values.shape for name, values in predictions.items()}
    is_odd = labels.ndim not in (1, 2) or len(labels) == 0
    if is_odd or any(s != expected for s in shapes.values()):
        raise ValueError(
            "every model needs one prediction a row, and there must be a row; "
            f"got labels of shape {labels.shape} and predictions {shapes}"
        )
