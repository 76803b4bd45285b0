"""How good predictions are, as one number, and as thousands of numbers at once for the bootstrap.

Every metric is a closed formula of *sums over counts* (how often each data row was drawn), so one
matrix product serves all resamples:

    counts (R, N) @ features (N, K) = sums from which R values follow
    N rows, R resamples, K features

Spearman needs the ranks inside each resample; with the rows sorted once, they are running sums of
counts. The value on the data itself is the same formula with every count 1.

What is undefined is defined here, because a report cannot print NaN: where one side does not vary
(one class, a constant prediction), `matthews`, `pearson` and `spearman` are 0, as is `f1` where
class 1 is neither present nor predicted; `macro_f1` leaves such classes out. A prediction that is
NaN or infinite is refused: it would count as merely wrong (`argmax` of NaN is class 0, and NaN has
the highest rank). ROUGE is computed text by text elsewhere (`rouge`); here it is a mean over rows.
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
"""(predictions (N,), labels (N,), counts (R, N)) → values (R,); sets of labels are (N, C)."""

LARGEST_EXPONENT = 700.0
"""exp of more is beyond float64."""
ROWS_NAMED = 8
"""Rows listed in a message; the rest is counted."""
ROUNDING = 1e-12
"""A variance below this share of the mean square is rounding, not variation: 1e4 × the float64
epsilon."""


def require_finite(values: ArrayLike, whose: str) -> None:
    """Refuse predictions, or scores of classes, that are NaN or infinite.

    Args:
        values: (N,) or (N, C).
        whose: who gave them, for the message.
    Raises:
        NonFiniteError: with the number of rows and the first of them.
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
    """The class of the highest score in each row, the first of equals.

    Args:
        scores: (N, C).
    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    require_finite(scores, whose)
    return np.asarray(scores).argmax(axis=1)


def accuracy_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Share of rows whose predicted class is the label's, 0..1, in each resample."""
    right = (predictions == labels).astype(np.float64)
    return counts @ right / counts.sum(axis=1)


def matthews_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Matthews' correlation of two classifications, −1..1, in each resample; 0 is chance, and a
    single class on either side.

    (c·s − Σ p_k t_k) / √((s² − Σ p_k²)(s² − Σ t_k²)): s rows, c of them right, p_k predicted and
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
    """F1 of class 1 against all others, 0..1, in each resample: 2·tp / (2·tp + fp + fn)."""
    true_positives = counts @ ((predictions == 1) & (labels == 1)).astype(np.float64)
    predicted_and_labelled = counts @ ((predictions == 1) * 1.0 + (labels == 1) * 1.0)
    return _ratio(2 * true_positives, predicted_and_labelled)


def macro_f1_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Mean of the classes' F1, 0..1, in each resample; a class that is neither labelled nor
    predicted in it has no say."""
    right, seen = _right_and_seen(predictions, labels, counts)
    return _ratio(_ratio(2 * right, seen).sum(axis=1), (seen > 0).sum(axis=1).astype(np.float64))


def micro_f1_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """F1 of all decisions about a class together, 0..1, in each resample; where each row has one
    class, this is the accuracy."""
    right, seen = _right_and_seen(predictions, labels, counts)
    return _ratio(2 * right.sum(axis=1), seen.sum(axis=1))


def _right_and_seen(
    predictions: NDArray[Any], labels: NDArray[Any], counts: Floats
) -> tuple[Floats, Floats]:
    """How often each class was right, and was predicted plus was the label, in each resample: (R,
    C), of classes (N,) or of sets of them as 0 and 1 (N, C)."""
    if labels.ndim == 1:
        classes = np.unique(np.concatenate([predictions, labels]))
        predictions, labels = predictions[:, None] == classes, labels[:, None] == classes
    chosen, wanted = predictions > 0, labels > 0
    right = counts @ (chosen & wanted).astype(np.float64)
    return right, counts @ (chosen * 1.0 + wanted * 1.0)


def span_f1_of_counts(found: NDArray[Any], marked: NDArray[Any], counts: Floats) -> Floats:
    """F1 of marks, 0..1, in each resample of rows: 2·right / (found + marked), summed over rows.

    Args:
        found: of each row, how many marks are right and how many were made, (N, 2).
        marked: of each row, how many there are, (N,).
    """
    right, made = found[:, 0].astype(np.float64), found[:, 1].astype(np.float64)
    return _ratio(2 * (counts @ right), counts @ (made + marked))


def span_precision_of_counts(found: NDArray[Any], marked: NDArray[Any], counts: Floats) -> Floats:
    """Share of the marks made that are right; as `span_f1_of_counts`."""
    return _ratio(counts @ found[:, 0].astype(np.float64), counts @ found[:, 1].astype(np.float64))


def span_recall_of_counts(found: NDArray[Any], marked: NDArray[Any], counts: Floats) -> Floats:
    """Share of the marks there are that were made; as `span_f1_of_counts`."""
    return _ratio(counts @ found[:, 0].astype(np.float64), counts @ marked.astype(np.float64))


def mean_of_counts(scores: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Mean of a score that each row has by itself, in each resample; `labels` have no say."""
    return _ratio(counts @ scores.astype(np.float64), counts.sum(axis=1))


def nll_of_counts(nats: NDArray[Any], tokens: NDArray[Any], counts: Floats) -> Floats:
    """Nats per token: Σ nats / Σ tokens of the rows drawn, in each resample."""
    return _ratio(counts @ nats.astype(np.float64), counts @ tokens.astype(np.float64))


def perplexity_of_counts(nats: NDArray[Any], tokens: NDArray[Any], counts: Floats) -> Floats:
    """exp of `nll_of_counts`."""
    return np.exp(np.minimum(nll_of_counts(nats, tokens, counts), LARGEST_EXPONENT))


def bits_per_byte_of_counts(nats: NDArray[Any], size: NDArray[Any], counts: Floats) -> Floats:
    """Bits a byte of text: Σ nats / ln 2 / Σ bytes of the rows drawn, in each resample."""
    return nll_of_counts(nats, size, counts) / np.log(2.0)


def pearson_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Linear correlation, −1..1, in each resample; 0 when one side is constant."""
    x, y = _centred(predictions), _centred(labels)
    sums = counts @ np.stack([x, y, x * x, y * y, x * y], axis=1)
    return _correlation(sums, counts.sum(axis=1))


def spearman_of_counts(predictions: NDArray[Any], labels: NDArray[Any], counts: Floats) -> Floats:
    """Linear correlation of the ranks inside each resample, −1..1, ties given their mean rank; 0
    when one side is constant.
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
    """Rank of every row inside every resample, minus ½, (R, N); tied draws share their mean rank.

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
    """Values minus their mean, which keeps the sums of squares from cancelling."""
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
    """numerator / denominator, and 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def constant_score(metric: str, labels: ArrayLike) -> float | None:
    """What the best constant answer scores: a model no better than that is at chance.

    That of always answering the most frequent class for accuracy, macro_f1 and micro_f1, class 1
    for F1, and 0 for correlations; None for metrics of texts and of sets of labels.

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
    """The metric on the data as they are: every row drawn once."""
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
    """Any metric on the data as they are, of what it reads of each row."""
    return float(METRICS_OF_COUNTS[metric](found, labels, np.ones((1, len(labels))))[0])


METRICS: Mapping[str, Metric] = {
    name: partial(_on_all_rows, METRICS_OF_COUNTS[name]) for name in (*CLASSES, *SCORES)
}
"""Metrics of predictions as they are.

Example:
    >>> METRICS["accuracy"]([1, 0, 1, 1], [1, 0, 0, 1]), METRICS["f1"]([1, 0, 1, 1], [1, 0, 0, 1])
    (0.75, 0.8)
"""
