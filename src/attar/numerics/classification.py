"""Per-class figures, confusion matrix and calibration of a classifier.

    precision_c = tp_c / (tp_c + fp_c)       recall_c = tp_c / (tp_c + fn_c)
    F1_c        = 2·tp_c / (2·tp_c + fp_c + fn_c)
    ECE         = Σ_bins (rows in bin / N) · | mean confidence − share right |

Confidence is the largest probability of a row. If it matches the accuracy, a confidence threshold
is meaningful; `above` gives coverage and accuracy at a threshold.

Undefined values are 0, as in scikit-learn with `zero_division=0`, which is the reference in the
tests and an optional dependency. Source of the ECE: Guo et al. 2017 (arXiv 1706.04599), equation 3,
with bins of equal width. Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NUM_BINS = 15
"""Number of confidence bins, as in the paper's tables."""


def softmax(logits: NDArray[Any]) -> Floats:
    """Numerically stable softmax along the last axis, in float64.

    Example:
        >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
        [[0.5, 0.5]]
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def balanced_weights(labels: NDArray[Any], num_classes: int) -> Floats:
    """Class weights that balance all classes, (C,).

    For classes (N,): N / (number of classes that occur · rows of the class), with mean 1 over the
    rows. For label sets (N, C): rows without the label / rows with it. Unlabelled rows (−1) are
    ignored; a class without rows gets 1.

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
    """Confusion matrix (C, C): rows are labels, columns are predictions.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    pairs = labels * num_classes + predictions
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class ClassFigures:
    """Precision, recall and F1 of one class, 0..1."""

    precision: float
    recall: float
    f1: float
    rows: int
    """Number of rows with this label."""
    predicted: int
    """Number of rows with this prediction."""


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
    """Like `class_figures`, from the numbers of correct rows, labels and predictions per class
    (C,)."""
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
    """A confidence bin."""

    low: float
    """Lower end, exclusive except in the first bin."""
    high: float
    rows: int
    confidence: float
    """Mean confidence."""
    accuracy: float


def calibration_bins(confidence: Floats, right: NDArray[np.bool_]) -> list[Bin]:
    """The nonempty bins of equal width, in order of increasing confidence.

    Args:
        confidence: (N,), 0..1.
        right: whether each prediction is correct, (N,).
    """
    edges = np.linspace(0, 1, NUM_BINS + 1)
    bin_N = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, NUM_BINS - 1)
    return [
        Bin(
            low=float(edges[place]),
            high=float(edges[place + 1]),
            rows=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(right[inside].mean()),
        )
        for place in range(NUM_BINS)
        if (inside := bin_N == place).any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error, 0..1; 0 if confidence equals accuracy in every bin.

    Example:
        >>> sure = calibration_bins(np.array([0.9, 0.9]), np.array([True, False]))
        >>> round(calibration_error(sure), 6)
        0.4
    """
    rows = sum(one.rows for one in bins)
    return sum(one.rows * abs(one.confidence - one.accuracy) for one in bins) / rows


@dataclass(frozen=True)
class Confident:
    """Coverage and accuracy at a confidence threshold."""

    threshold: float
    rows: int
    coverage: float
    """Share of rows at or above the threshold."""
    accuracy: float | None
    """Accuracy on these rows; None if there are none."""


def above(
    confidence: Floats, right: NDArray[np.bool_], thresholds: Sequence[float]
) -> Iterator[Confident]:
    """Coverage and accuracy at each confidence threshold."""
    for threshold in thresholds:
        inside = confidence >= threshold
        rows = int(inside.sum())
        accuracy = float(right[inside].mean()) if rows else None
        yield Confident(threshold, rows, rows / len(confidence), accuracy)
