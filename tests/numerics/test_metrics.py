"""The metrics say what scikit-learn and scipy say, and their form for resamples says what they say
one by one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.errors import NonFiniteError
from attar.numerics.metric_names import CALIBRATION, LANGUAGE, LOWER_IS_BETTER, METRIC_NAMES
from attar.numerics.metrics import (
    LARGEST_EXPONENT,
    METRICS,
    METRICS_OF_COUNTS,
    constant_score,
    predicted_classes,
)
from attar.numerics.statistics import bootstrap

EXACT = 1e-12
"""The same closed formula in float64, summed in another order."""
SHIFTED = 1e-9
"""A shift of 1e3 on values scaled by 1e-3 leaves 1e6 × the float64 epsilon of each, 2e-10."""
matthews, f1, pearson, spearman = (METRICS[m] for m in ("matthews", "f1", "pearson", "spearman"))
CLASS_METRICS = ("accuracy", "matthews", "f1", "macro_f1", "micro_f1")
NUMBER_METRICS = ("pearson", "spearman")


def peers() -> dict[str, Callable[..., float]]:
    sklearn = pytest.importorskip("sklearn.metrics")
    scipy = pytest.importorskip("scipy.stats")
    return {
        "accuracy": lambda p, y: sklearn.accuracy_score(y, p),
        "matthews": lambda p, y: sklearn.matthews_corrcoef(y, p),
        "f1": lambda p, y: sklearn.f1_score(y, p),
        "macro_f1": lambda p, y: sklearn.f1_score(y, p, average="macro"),
        "micro_f1": lambda p, y: sklearn.f1_score(y, p, average="micro"),
        "pearson": lambda p, y: scipy.pearsonr(p, y).statistic,
        "spearman": lambda p, y: scipy.spearmanr(p, y).statistic,
    }


def some_rows(metric: str, classes: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    if metric in CLASS_METRICS:
        labels = random.integers(0, classes, rows)
        wrong = random.random(rows) < 0.3
        return np.where(wrong, random.integers(0, classes, rows), labels), labels
    labels = random.integers(0, 26, rows) / 5
    return labels + random.normal(size=rows).round(1), labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metric", METRICS)
def test_metric_equals_its_peer(metric: str, seed: int) -> None:
    predictions, labels = some_rows(metric, 2, 300, seed)
    assert METRICS[metric](predictions, labels) == pytest.approx(
        peers()[metric](predictions, labels), abs=EXACT
    )


def test_matthews_of_many_classes_equals_scikit_learn() -> None:
    predictions, labels = some_rows("matthews", 11, 500, 3)
    assert matthews(predictions, labels) == pytest.approx(
        peers()["matthews"](predictions, labels), abs=EXACT
    )


@pytest.mark.parametrize("metric", METRICS)
def test_metric_of_counts_is_the_metric_of_the_drawn_rows(metric: str) -> None:
    """Few rows, so that resamples with one class or a constant side occur as well."""
    predictions, labels = some_rows(metric, 3, 8, 1)
    drawn = np.random.default_rng(0).integers(0, 8, size=(400, 8))
    counts = np.stack([np.bincount(rows, minlength=8) for rows in drawn]).astype(np.float64)
    together = METRICS_OF_COUNTS[metric](predictions, labels, counts)
    one_by_one = [METRICS[metric](predictions[rows], labels[rows]) for rows in drawn]
    np.testing.assert_allclose(together, one_by_one, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_metric_is_one_for_perfect_predictions_and_blind_to_the_order_of_rows(metric: str) -> None:
    predictions, labels = some_rows(metric, 2, 50, 2)
    assert METRICS[metric](labels, labels) == pytest.approx(1.0, abs=EXACT)
    order = np.random.default_rng(1).permutation(50)
    assert METRICS[metric](predictions[order], labels[order]) == pytest.approx(
        METRICS[metric](predictions, labels), abs=EXACT
    )


def test_what_is_undefined_is_zero() -> None:
    varied, constant = np.array([0, 1, 1, 0]), np.array([1, 1, 1, 1])
    assert matthews(constant, varied) == 0.0
    assert matthews(varied, constant) == 0.0
    assert matthews(constant, constant) == 0.0
    assert f1(np.zeros(4), np.zeros(4)) == 0.0
    for correlation in (pearson, spearman):
        assert correlation(constant * 0.1, varied) == 0.0
        assert correlation(varied, constant * 0.1) == 0.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_a_resample_in_which_one_side_is_constant_has_no_correlation(
    metric: str, seed: int
) -> None:
    """Rounding leaves a variance of about 1e-17; divided by it, nothing looks like something."""
    random = np.random.default_rng(seed)
    constant = np.array([0.1, 0.1, 0.1, 0.1, 0.37, 0.9]) + random.random()
    varied = random.random(6)
    counts = np.array([[1.0, 2, 2, 1, 0, 0]])
    for sides in ((constant, varied), (varied, constant), (constant, constant)):
        assert METRICS_OF_COUNTS[metric](*sides, counts).tolist() == [0.0]


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_correlations_ignore_shift_and_scale(shift: float, scale: float, seed: int) -> None:
    predictions, labels = some_rows("pearson", 0, 40, seed)
    assert pearson(shift + scale * predictions, labels) == pytest.approx(
        pearson(predictions, labels), abs=SHIFTED
    )
    assert spearman(np.unique(predictions, return_inverse=True)[1] ** 3, labels) == pytest.approx(
        spearman(predictions, labels), abs=EXACT
    )


@pytest.mark.parametrize("rows", [(3, 4), (0, 0)])
def test_a_metric_refuses_sides_of_different_length_and_no_rows(rows: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="as many predictions as labels"):
        METRICS["accuracy"](np.zeros(rows[0]), np.zeros(rows[1]))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", METRICS)
def test_a_prediction_that_is_not_finite_has_no_metric(metric: str, broken: float) -> None:
    """Spearman of a NaN was 0.5, Pearson 0, and accuracy counted it as wrong."""
    predictions, labels = some_rows(metric, 3, 20, 3)
    damaged = predictions.astype(np.float64)
    damaged[[3, 7]] = broken
    with pytest.raises(NonFiniteError, match=r"for 2 of 20 rows \(rows 3, 7\)"):
        METRICS[metric](damaged, labels)
    with pytest.raises(NonFiniteError, match=r"model 'b' gave NaN or infinite .* 2 of 20 rows"):
        bootstrap(metric, {"a": predictions, "b": damaged}, labels, resamples=10)


def test_the_class_of_a_row_without_finite_scores_is_not_the_first() -> None:
    scores = np.array([[0.1, 0.9], [0.5, 0.5], [0.7, 0.3]])
    assert predicted_classes(scores, "it").tolist() == [1, 0, 0]
    scores[np.arange(3), [1, 0, 1]] = np.nan
    with pytest.raises(NonFiniteError, match=r"it gave .* 3 of 3 rows \(rows 0, 1, 2\)"):
        predicted_classes(scores, "it")
    many = np.full((20, 2), np.nan)
    with pytest.raises(NonFiniteError, match=r"rows 0, 1, 2, 3, 4, 5, 6, 7 and 12 more\)"):
        predicted_classes(many, "it")


def test_a_constant_answer_scores_what_chance_is_called() -> None:
    labels = np.array([0, 1, 1, 2, 1])
    for metric in CLASS_METRICS:
        best = max(METRICS[metric](np.full(5, answer), labels) for answer in (0, 1, 2))
        assert constant_score(metric, labels) == pytest.approx(best, abs=EXACT)
    assert constant_score("pearson", labels * 0.5) == 0.0
    assert constant_score("rouge1", labels) is None


def test_a_perplexity_beyond_float64_is_its_largest_exponent() -> None:
    """And no infinity, which JSON cannot say."""
    nats, tokens = np.array([800.0, 900.0]), np.array([1.0, 1.0])
    found = METRICS_OF_COUNTS["perplexity"](nats, tokens, np.ones((1, 2)))
    assert found.tolist() == [math.exp(LARGEST_EXPONENT)]


def test_language_metrics_are_means_over_what_they_are_named_after() -> None:
    """Three nats over two tokens of four bytes; of all three, less is better."""
    nats, once = np.array([1.0, 2.0]), np.ones((1, 2))
    tokens, size = np.array([1.0, 1.0]), np.array([1.0, 3.0])
    found = {
        "nll": METRICS_OF_COUNTS["nll"](nats, tokens, once),
        "perplexity": METRICS_OF_COUNTS["perplexity"](nats, tokens, once),
        "bits_per_byte": METRICS_OF_COUNTS["bits_per_byte"](nats, size, once),
    }
    assert [float(value[0]) for value in found.values()] == pytest.approx(
        [1.5, math.exp(1.5), 3 / 4 / math.log(2)], rel=EXACT
    )
    assert set(LANGUAGE) == set(found) == LOWER_IS_BETTER - {"loss", *CALIBRATION}


def test_every_named_metric_has_its_form_for_resamples() -> None:
    assert set(METRICS_OF_COUNTS) == set(METRIC_NAMES)


def test_no_correlation_lies_beyond_one() -> None:
    draws = np.random.default_rng(0).normal(size=(200, 7))
    found = [METRICS["pearson"](sign * (3.3 * x + 1.7), x) for x in draws for sign in (1, -1)]
    assert min(found) == -1.0
    assert max(found) == 1.0
