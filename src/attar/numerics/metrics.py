"""Metrics of predictions, vectorized over bootstrap resamples.

Every metric is a formula of *sums over counts* (how often each row was drawn), so a single matrix
product computes it for all resamples:

    counts (R, N) @ features (N, K) = sums from which R values follow
    N rows, R resamples, K features

Spearman needs the ranks within each resample; with sorted rows, they are cumulative sums of counts.
The value on the data itself is the same formula with all counts equal to 1.

Undefined values are replaced: `matthews`, `pearson` and `spearman` are 0 if one side is constant,
and so is `f1` if class 1 is neither present nor predicted; `macro_f1` ignores such classes. NaN or
infinite predictions are an error, because they would silently count as wrong (`argmax` of NaN is
class 0, and NaN has the highest rank). ROUGE is computed per text elsewhere (`rouge`); here it is a
mean over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attar.errors import NonFiniteError
from attar.numerics.metric_names import CLASSES, QUOTES, RANKING, ROUGE, SCORES, SPANS

Floats = NDArray[np.float64]
Metric = Callable[[ArrayLike, ArrayLike], float]
"""(predictions, labels) → value."""
CountsMetric = Callable[[NDArray[Any], NDArray[Any], Floats], Floats]
"""(predictions (N,), labels (N,), counts (R, N)) → values (R,); label sets are (N, C)."""

LARGEST_EXPONENT = 700.0
"""exp of larger numbers overflows float64."""
ROWS_NAMED = 8
"""Maximum number of rows listed in a message."""
ROUNDING = 1e-12
"""A variance below this share of the mean square is considered rounding error: 1e4 × the float64
epsilon."""


def require_finite(values: ArrayLike, whose: str) -> None:
    """Check that predictions, or scores of classes, are finite.

    Args:
        values: (N,) or (N, C).
        whose: their origin, for the message.
    Raises:
        NonFiniteError: a value is NaN or infinite; the message lists the first rows.
    """
    array = np.asarray(values)
    broken = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
    if len(broken):
        more = f" and {len(broken) - ROWS_NAMED:,} more" if len(broken) > ROWS_NAMED else ""
        raise NonFiniteError(
            f"{whose} gave NaN or infinite values for {len(broken):,} of {len(array):,} rows "
            f"(rows {', '.join(map(str, broken[:ROWS_NAMED]))}{more}); check the step that made "
            "the model (too few bits, or too high a learning rate)"
        )


def predicted_classes(scores: ArrayLike, whose: str) -> NDArray[np.int64]:
    """The class with the highest score in each row; the first one in case of ties.

    Args:
        scores: (N, C).
    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    require_finite(scores, whose)
    return np.asarray(scores).argmax(axis=1)


def accuracy_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Share of correctly predicted rows, 0..1, in each resample."""
    right = (predictions == labels).astype(np.float64)
    return counts @ right / counts.sum(axis=1)


def matthews_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Matthews correlation coefficient, −1..1, in each resample; 0 at chance level, or if either
    side has a single class.

    (c·s − Σ p_k t_k) / √((s² − Σ p_k²)(s² − Σ t_k²)): s rows, c correct, p_k predicted as class k,
    t_k labelled as class k.

    Source: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient
    (2004), equation 8.
    """
    classes = np.unique(np.concatenate([predictions, labels]))
    rows = counts.sum(axis=1)
    right = counts @ (predictions == labels).astype(np.float64)
    predicted = counts @ (predictions[:, None] == classes).astype(np.float64)
    labelled = counts @ (labels[:, None] == classes).astype(np.float64)
    covariance = right * rows - (predicted * labelled).sum(axis=1)
    variances = (rows**2 - (predicted**2).sum(axis=1)) * (rows**2 - (labelled**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(variances))


def f1_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """F1 of class 1, 0..1, in each resample: 2·tp / (2·tp + fp + fn)."""
    true_positives = counts @ ((predictions == 1) & (labels == 1)).astype(np.float64)
    predicted_and_labelled = counts @ ((predictions == 1) * 1.0 + (labels == 1) * 1.0)
    return _ratio(2 * true_positives, predicted_and_labelled)


def macro_f1_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Mean of the classes' F1, 0..1, in each resample; classes that are neither labelled nor
    predicted are ignored."""
    right, seen = _right_and_seen(predictions, labels, counts)
    return _ratio(_ratio(2 * right, seen).sum(axis=1), (seen > 0).sum(axis=1).astype(np.float64))


def micro_f1_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """F1 over all decisions of all classes, 0..1, in each resample; equal to accuracy if each row
    has exactly one class."""
    right, seen = _right_and_seen(predictions, labels, counts)
    return _ratio(2 * right.sum(axis=1), seen.sum(axis=1))


def _right_and_seen(
    predictions: NDArray[Any], labels: NDArray[Any], counts: Floats
) -> tuple[Floats, Floats]:
    """Per class and resample, (R, C): the number of correct predictions, and of predictions plus
    labels. Inputs are classes (N,), or label sets as 0 and 1 (N, C)."""
    if labels.ndim == 1:
        classes = np.unique(np.concatenate([predictions, labels]))
        predictions, labels = predictions[:, None] == classes, labels[:, None] == classes
    chosen, wanted = predictions > 0, labels > 0
    right = counts @ (chosen & wanted).astype(np.float64)
    return right, counts @ (chosen * 1.0 + wanted * 1.0)


def span_f1_of_counts(found: NDArray[Any], marked: NDArray[Any], counts: Floats) -> Floats:
    """F1 of entities, 0..1, in each resample: 2·correct / (predicted + gold), summed over rows.

    Args:
        found: number of correct and of predicted entities of each row, (N, 2).
        marked: number of gold entities of each row, (N,).
    """
    right, made = found[:, 0].astype(np.float64), found[:, 1].astype(np.float64)
    return _ratio(2 * (counts @ right), counts @ (made + marked))


def span_precision_of_counts(found: NDArray[Any], marked: NDArray[Any], counts: Floats) -> Floats:
    """Share of predicted entities that are correct. Args: as `span_f1_of_counts`."""
    return _ratio(counts @ found[:, 0].astype(np.float64), counts @ found[:, 1].astype(np.float64))


def span_recall_of_counts(found: NDArray[Any], marked: NDArray[Any], counts: Floats) -> Floats:
    """Share of gold entities that are found. Args: as `span_f1_of_counts`."""
    return _ratio(counts @ found[:, 0].astype(np.float64), counts @ marked.astype(np.float64))


def mean_of_counts(scores: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Mean of a per-row score in each resample; `labels` are ignored."""
    return _ratio(counts @ scores.astype(np.float64), counts.sum(axis=1))


def nll_of_counts(nats: NDArray[Any], tokens: NDArray[Any], counts: Floats) -> Floats:
    """Nats per token, Σ nats / Σ tokens, in each resample."""
    return _ratio(counts @ nats.astype(np.float64), counts @ tokens.astype(np.float64))


def perplexity_of_counts(nats: NDArray[Any], tokens: NDArray[Any], counts: Floats) -> Floats:
    """exp of `nll_of_counts`."""
    return np.exp(np.minimum(nll_of_counts(nats, tokens, counts), LARGEST_EXPONENT))


def bits_per_byte_of_counts(nats: NDArray[Any], size: NDArray[Any], counts: Floats) -> Floats:
    """Bits per byte of text, Σ nats / ln 2 / Σ bytes, in each resample."""
    return nll_of_counts(nats, size, counts) / np.log(2.0)


def pearson_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Pearson correlation, −1..1, in each resample; 0 if one side is constant."""
    x, y = _centred(predictions), _centred(labels)
    sums = counts @ np.stack([x, y, x * x, y * y, x * y], axis=1)
    return _correlation(sums, counts.sum(axis=1))


def spearman_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Spearman correlation, −1..1, in each resample, with mean ranks for ties; 0 if one side is
    constant.
    """
    x, y = _ranks_of_counts(predictions, counts), _ranks_of_counts(labels, counts)
    weighted_x, weighted_y = counts * x, counts * y
    sums = [
        weighted_x.sum(axis=1),
        weighted_y.sum(axis=1),
        np.einsum("rn,rn->r", weighted_x, x),
        np.einsum("rn,rn->r", weighted_y, y),
        np.einsum("rn,rn->r", weighted_x, y),
    ]
    return _correlation(np.stack(sums, axis=1), counts.sum(axis=1))


def _ranks_of_counts(values: NDArray[Any], counts: Floats) -> Floats:
    """Rank of every row within every resample, minus ½, (R, N); ties have their mean rank.

    A group of equal values drawn w times, after `below` smaller draws, has the ranks below + 1 …
    below + w, on average below + (w + 1) / 2.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    opens_group = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    drawn = np.add.reduceat(counts[:, order], np.flatnonzero(opens_group), axis=1)
    middle = drawn.cumsum(axis=1) - drawn / 2
    group_of_row = np.empty(len(values), dtype=np.intp)
    group_of_row[order] = np.cumsum(opens_group) - 1
    return middle[:, group_of_row]


def _centred(values: NDArray[Any]) -> Floats:
    """Values minus their mean, to avoid cancellation in sums of squares."""
    wide = values.astype(np.float64)
    return wide - wide.mean()


def _correlation(sums: Floats, rows: Floats) -> Floats:
    """Correlation from Σx, Σy, Σx², Σy², Σxy (R, 5) over `rows` draws (R,)."""
    x, y, xx, yy, xy = sums.T
    variance_x, variance_y = xx - x * x / rows, yy - y * y / rows
    varies = (variance_x > ROUNDING * xx) & (variance_y > ROUNDING * yy)
    scale = np.sqrt(np.where(varies, variance_x * variance_y, 0.0))
    return np.clip(_ratio(xy - x * y / rows, scale), -1.0, 1.0)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, or 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def constant_score(metric: str, labels: ArrayLike) -> float | None:
    """Score of the best constant prediction. A model that is no better is at chance level.

    The constant is the most frequent class for accuracy, macro_f1 and micro_f1, and class 1 for F1;
    the score is 0 for correlations, and None for metrics of texts and of label sets.

    Example:
        >>> constant_score("accuracy", [1, 1, 1, 0]), constant_score("matthews", [1, 1, 1, 0])
        (0.75, 0.0)
    """
    known = np.asarray(labels)
    if known.ndim == 2:
        return None
    if metric in ("accuracy", "macro_f1", "micro_f1"):
        classes, rows = np.unique(known, return_counts=True)
        return METRICS[metric](np.full_like(known, classes[rows.argmax()]), known)
    if metric == "f1":
        return METRICS["f1"](np.ones_like(known), known)
    return 0.0 if metric in METRICS else None


def _on_all_rows(metric: CountsMetric, predictions: ArrayLike, labels: ArrayLike) -> float:
    """The metric on the data itself, with every row drawn once."""
    predicted, labelled = np.asarray(predictions), np.asarray(labels)
    is_of_sets = metric in (macro_f1_of_counts, micro_f1_of_counts) and predicted.ndim == 2
    if (
        not (predicted.ndim == 1 or is_of_sets)
        or predicted.shape != labelled.shape
        or len(predicted) == 0
    ):
        raise ValueError(
            "a metric needs as many predictions as labels, in one dimension, at least one; "
            f"got shapes {predicted.shape} and {labelled.shape}"
        )
    require_finite(predicted, "the model")
    return float(metric(predicted, labelled, np.ones((1, len(predicted))))[0])


METRICS_OF_COUNTS: Mapping[str, CountsMetric] = {
    "accuracy": accuracy_of_counts,
    "matthews": matthews_of_counts,
    "f1": f1_of_counts,
    "macro_f1": macro_f1_of_counts,
    "micro_f1": micro_f1_of_counts,
    "pearson": pearson_of_counts,
    "spearman": spearman_of_counts,
    "span_f1": span_f1_of_counts,
    "span_precision": span_precision_of_counts,
    "span_recall": span_recall_of_counts,
    **dict.fromkeys((*RANKING, *QUOTES, *ROUGE), mean_of_counts),
    "nll": nll_of_counts,
    "perplexity": perplexity_of_counts,
    "bits_per_byte": bits_per_byte_of_counts,
}
"""Every name of `metric_names` in its form for resamples. The "predictions" of ROUGE and of quotes
are the scores of the rows, those of rankings the scores of the queries; those of running text are
the nats that a row cost, and its "labels" are its tokens, or its bytes for bits_per_byte; those of
marks are counts, as their functions say."""

COLUMNS: Mapping[str, tuple[int, ...]] = dict.fromkeys(SPANS, (2,))
"""Metric → the shape of what it reads of a row's predictions, where that is not one number."""


def on_all_rows(metric: str, found: NDArray[Any], labels: NDArray[Any]) -> float:
    """Any metric on the data itself, from the values that it reads for each row."""
    return float(METRICS_OF_COUNTS[metric](found, labels, np.ones((1, len(labels))))[0])


METRICS: Mapping[str, Metric] = {
    name: partial(_on_all_rows, METRICS_OF_COUNTS[name]) for name in (*CLASSES, *SCORES)
}
"""Metrics of predictions on the data itself.

Example:
    >>> METRICS["accuracy"]([1, 0, 1, 1], [1, 0, 0, 1]), METRICS["f1"]([1, 0, 1, 1], [1, 0, 0, 1])
    (0.75, 0.8)
"""
