"""What one figure does not say of a classifier: which classes it confuses, and whether its
confidence can be trusted.

    precision_c = tp_c / (tp_c + fp_c)       recall_c = tp_c / (tp_c + fn_c)
    F1_c        = 2·tp_c / (2·tp_c + fp_c + fn_c)
    ECE         = Σ_bins (rows in bin / N) · | mean confidence − share right |

Confidence is the largest probability of a row. Where it matches the share of right answers, a
threshold on it means something: `above` says how many rows are answered and how many of them right.

What is undefined is 0, as in scikit-learn with `zero_division=0`; it is the reference in the tests
and an optional dependency. Source of the ECE: Guo et al. 2017 (arXiv 1706.04599), equation 3, bins
of equal width. Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NUM_BINS = 15
"""Of confidence; the number in the paper's tables."""


def softmax(logits: NDArray[Any]) -> Floats:
    """Probabilities along the last axis, in float64 and safe from overflow.

    Example:
        >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
        [[0.5, 0.5]]
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def balanced_weights(labels: NDArray[Any], num_classes: int) -> Floats:
    """Factors that make all classes weigh alike, (C,).

    Of classes (N,): N / (classes that occur · rows of the class), a mean of 1 over the rows. Of
    sets (N, C): rows without the label per row with it. Rows without a label (−1) have no say; a
    class without a row gets 1.

    Example:
        >>> balanced_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
        [0.667, 2.0]
    """
    if labels.ndim == 2:
        positive, negative = (labels > 0).sum(axis=0), (labels == 0).sum(axis=0)
        is_usable = (positive > 0) & (negative > 0)
        return np.divide(negative, positive, out=np.ones(num_classes), where=is_usable)
    rows = np.bincount(labels[labels >= 0], minlength=num_classes)
    shares = np.count_nonzero(rows) * rows / max(rows.sum(), 1)
    return np.divide(1.0, shares, out=np.ones(num_classes), where=shares > 0)


def confusion_matrix(
    labels: NDArray[Any], predictions: NDArray[Any], num_classes: int
) -> NDArray[np.int64]:
    """Rows of each class (C) that were predicted as each class (C).

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    pairs = labels * num_classes + predictions
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is found, 0..1."""

    precision: float
    recall: float
    f1: float
    rows: int
    """That have this label."""
    predicted: int
    """Rows that were predicted to have it."""


def class_figures(confusion: NDArray[np.int64]) -> list[ClassFigures]:
    """Precision, recall and F1 of every class of a confusion matrix (C, C).

    Example:
        >>> class_figures(np.array([[1, 1], [0, 1]]))[1]
        ClassFigures(precision=0.5, recall=1.0, f1=0.6666666666666666, rows=1, predicted=2)
    """
    return figures_of_counts(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0))


def figures_of_counts(
    right: NDArray[np.int64], labelled: NDArray[np.int64], predicted: NDArray[np.int64]
) -> list[ClassFigures]:
    """The same from how often each class (C,) was right, is the label, and was predicted."""
    return [
        ClassFigures(
            precision=_share(hit, given),
            recall=_share(hit, wanted),
            f1=_share(2 * hit, given + wanted),
            rows=wanted,
            predicted=given,
        )
        for hit, wanted, given in zip(
            right.tolist(), labelled.tolist(), predicted.tolist(), strict=True
        )
    ]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True)
class Bin:
    """Rows of like confidence."""

    low: float
    """Exclusive, but of the first bin."""
    high: float
    rows: int
    confidence: float
    """Mean."""
    accuracy: float


def calibration_bins(
    confidence: Floats, right: NDArray[np.bool_], num_bins: int = NUM_BINS
) -> list[Bin]:
    """The bins of equal width that hold a row, the least confident first.

    Args:
        confidence: (N,), 0..1.
        right: whether each row was answered right, (N,).
    """
    edges = np.linspace(0, 1, num_bins + 1)
    bin_N = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, num_bins - 1)
    return [
        Bin(
            low=float(edges[place]),
            high=float(edges[place + 1]),
            rows=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(right[inside].mean()),
        )
        for place in range(num_bins)
        if (inside := bin_N == place).any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error, 0..1; 0: confidence is the share of right answers.

    Example:
        >>> sure = calibration_bins(np.array([0.9, 0.9]), np.array([True, False]))
        >>> round(calibration_error(sure), 6)
        0.4
    """
    rows = sum(one.rows for one in bins)
    return sum(one.rows * abs(one.confidence - one.accuracy) for one in bins) / rows


@dataclass(frozen=True)
class Confident:
    """The rows that a threshold on confidence lets through."""

    threshold: float
    rows: int
    coverage: float
    """Their share of all rows."""
    accuracy: float | None
    """Of them; None: there are none."""


def above(
    confidence: Floats, right: NDArray[np.bool_], thresholds: Sequence[float]
) -> Iterator[Confident]:
    """How many rows are at least as confident as each threshold, and how many of them are right."""
    for threshold in thresholds:
        inside = confidence >= threshold
        rows = int(inside.sum())
        accuracy = float(right[inside].mean()) if rows else None
        yield Confident(threshold, rows, rows / len(confidence), accuracy)
