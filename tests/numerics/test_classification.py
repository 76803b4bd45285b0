"""Figures of classes are scikit-learn's, and confidence is compared with the share of right
answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.numerics.classification import (
    above,
    calibration_bins,
    calibration_error,
    class_figures,
    confusion_matrix,
    softmax,
)

CLASSES = 5
EXACT = 1e-12
"""Rounding of a mean of equal numbers."""


def rows_of(seed: int, rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions; class 4 is never predicted, class 3 never a label."""
    random = np.random.default_rng(seed)
    labels = random.choice([0, 1, 2, 4], rows)
    wrong = random.random(rows) < 0.4
    predictions = np.where(wrong | (labels == 4), random.integers(0, 4, rows), labels)
    return labels, predictions


@pytest.mark.parametrize("seed", range(3))
def test_confusions_and_figures_of_classes_are_those_of_scikit_learn(seed: int) -> None:
    peer = pytest.importorskip("sklearn.metrics")
    labels, predictions = rows_of(seed)
    confusion = confusion_matrix(labels, predictions, CLASSES)
    theirs = peer.confusion_matrix(labels, predictions, labels=range(CLASSES))
    assert confusion.tolist() == theirs.tolist()
    wanted = peer.precision_recall_fscore_support(
        labels, predictions, labels=range(CLASSES), zero_division=0
    )
    found = [(f.precision, f.recall, f.f1, f.rows) for f in class_figures(confusion)]
    np.testing.assert_allclose(np.array(found).T, np.array(wanted, dtype=float))
    assert [f.predicted for f in class_figures(confusion)] == theirs.sum(axis=0).tolist()


@given(st.integers(0, 99), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_every_row_is_in_one_bin_whose_range_holds_its_confidence(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    confidence = random.choice([0.0, 0.2, 1 / 3, 0.6, 1.0, random.random()], rows)
    right = random.random(rows) < 0.5
    bins = calibration_bins(confidence, right)
    assert sum(one.rows for one in bins) == rows
    for one in bins:
        assert one.low - EXACT <= one.confidence <= one.high + EXACT
    mean = sum(one.rows * one.accuracy for one in bins) / rows
    assert mean == pytest.approx(right.mean())
    gap = abs(confidence.mean() - right.mean())
    assert gap - 1e-12 <= calibration_error(bins) <= 1


def test_confidence_that_is_the_share_of_right_answers_has_no_error() -> None:
    confidence = np.repeat([0.5, 0.75], [4, 8])
    right = np.array([True, False] * 2 + [True] * 6 + [False] * 2)
    assert calibration_error(calibration_bins(confidence, right)) == pytest.approx(0)


def test_a_higher_threshold_answers_fewer_texts() -> None:
    confidence = np.array([0.4, 0.9, 0.95, 0.6])
    right = np.array([False, True, True, False])
    low, middle, none = above(confidence, right, [0.4, 0.9, 0.99])
    assert (low.rows, low.coverage, low.accuracy) == (4, 1.0, 0.5)
    assert (middle.rows, middle.coverage, middle.accuracy) == (2, 0.5, 1.0)
    assert (none.rows, none.coverage, none.accuracy) == (0, 0.0, None)


def test_probabilities_add_up_to_one_however_large_the_logits() -> None:
    found = softmax(np.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[1], 1 / 3)
