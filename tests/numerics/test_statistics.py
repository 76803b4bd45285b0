"""Laws of the bootstrap: what must hold for any data, and agreement with scipy's."""

from __future__ import annotations

import numpy as np
import pytest

from attar.numerics.metrics import METRICS
from attar.numerics.statistics import (
    Bootstrapped,
    Difference,
    bootstrap,
    bootstrap_interval,
    most_unseen,
    paired_bootstrap,
    resample_counts,
    spread,
)
from attar.report.quantities import interval_text

ROWS = 300


def answers(right_share: float, seed: int, rows: int = ROWS) -> np.ndarray:
    """Predictions for labels that are all 1, right with a given probability."""
    return (np.random.default_rng(seed).random(rows) < right_share).astype(np.int64)


def two_models(metric: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    random = np.random.default_rng(5)
    if metric in ("pearson", "spearman"):
        labels = random.integers(0, 26, ROWS) / 5
        return {k: labels + random.normal(size=ROWS) for k in "ab"}, labels
    labels = random.integers(0, 2, ROWS)
    return {k: np.where(random.random(ROWS) < 0.2, 1 - labels, labels) for k in "ab"}, labels


def test_a_resample_draws_as_many_rows_as_there_are_and_each_equally_often() -> None:
    chunks = list(resample_counts(5000, 700, seed=3))
    assert len(chunks) > 1, "the case must need more than one chunk"
    counts = np.concatenate(chunks)
    assert counts.shape == (700, 5000)
    assert (counts.sum(axis=1) == 5000).all()
    # A row is drawn 700 times on average; its count is binomial, and 6 sd never happen by chance.
    assert np.abs(counts.sum(axis=0) - 700).max() < 6 * np.sqrt(700)


def test_the_draws_are_a_pure_function_of_the_seed() -> None:
    first, again, other = (next(resample_counts(50, 20, seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("metric", METRICS)
def test_value_is_the_metric_itself_and_lies_inside_its_interval(metric: str) -> None:
    predictions, labels = two_models(metric)
    one = bootstrap(metric, predictions, labels, resamples=500)["a"]
    interval = bootstrap_interval(one)
    assert interval.value == METRICS[metric](predictions["a"], labels)
    assert interval.low < interval.value < interval.high
    assert interval.n == ROWS


@pytest.mark.parametrize("metric", METRICS)
def test_paired_difference_is_zero_for_identical_predictions(metric: str) -> None:
    predictions, labels = two_models(metric)
    both = bootstrap(metric, {"a": predictions["a"], "same": predictions["a"]}, labels)
    assert paired_bootstrap(both["a"], both["same"]) == Difference(0.0, 0.0, 0.0, ROWS)
    assert paired_bootstrap(both["a"], both["same"]).within_noise


@pytest.mark.parametrize("metric", METRICS)
def test_paired_difference_is_antisymmetric(metric: str) -> None:
    predictions, labels = two_models(metric)
    both = bootstrap(metric, predictions, labels, resamples=400)
    there, back = paired_bootstrap(both["a"], both["b"]), paired_bootstrap(both["b"], both["a"])
    assert there.value == -back.value
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert there.within_noise == back.within_noise


def test_a_difference_is_positive_when_the_model_is_better_than_the_other() -> None:
    labels = np.ones(ROWS, dtype=np.int64)
    both = bootstrap("accuracy", {"good": answers(0.9, 1), "bad": answers(0.6, 2)}, labels)
    difference = paired_bootstrap(both["good"], both["bad"])
    assert 0 < difference.low < difference.value < difference.high


def test_a_model_does_not_depend_on_which_others_are_drawn_with_it() -> None:
    predictions, labels = two_models("accuracy")
    alone = bootstrap("accuracy", {"b": predictions["b"]}, labels)["b"]
    together = bootstrap("accuracy", predictions, labels)["b"]
    assert (alone.resampled == together.resampled).all()


def test_pairing_narrows_the_interval_of_models_that_fail_on_the_same_rows() -> None:
    """b is a with 2 % of its answers flipped: nearly the same rows are hard for both."""
    labels = np.ones(ROWS, dtype=np.int64)
    first = answers(0.8, seed=1)
    flipped = answers(0.02, seed=2) == 1
    both = bootstrap("accuracy", {"a": first, "b": np.where(flipped, 1 - first, first)}, labels)
    paired = paired_bootstrap(both["a"], both["b"])
    single = bootstrap_interval(both["a"])
    assert paired.high - paired.low < 0.5 * (single.high - single.low)


def test_a_difference_is_within_noise_exactly_when_its_interval_holds_zero() -> None:
    assert Difference(0.01, -0.001, 0.02, 10).within_noise
    assert Difference(0.01, 0.0, 0.02, 10).within_noise
    assert Difference(-0.01, -0.02, 0.0, 10).within_noise
    assert not Difference(0.01, 0.001, 0.02, 10).within_noise
    assert not Difference(-0.01, -0.02, -0.001, 10).within_noise


def test_models_of_different_draws_cannot_be_paired() -> None:
    labels = np.ones(ROWS, dtype=np.int64)
    first = bootstrap("accuracy", {"a": answers(0.8, 1)}, labels, seed=1, resamples=100)["a"]
    other = bootstrap("accuracy", {"a": answers(0.8, 1)}, labels, seed=2, resamples=100)["a"]
    with pytest.raises(ValueError, match="same draws"):
        paired_bootstrap(first, other)


@pytest.mark.parametrize("metric", ["accuracy", "pearson"])
def test_intervals_agree_with_scipy(metric: str) -> None:
    """Two independent draws of 4,000 resamples.

    A 2.5 % quantile of 4,000 draws sits between the 2.0 % and 3.0 % quantiles (2 sd), which are
    0.16 standard errors apart; 0.3 standard errors for both draws together leave room, and a wrong
    tail (5 % instead of 2.5 %: 0.32 standard errors) would still show on one side.
    """
    scipy_stats = pytest.importorskip("scipy.stats")
    predictions, labels = two_models(metric)
    both = bootstrap(metric, predictions, labels, resamples=4000, seed=1)
    ours = paired_bootstrap(both["a"], both["b"])
    if metric == "accuracy":
        right = {k: (v == labels).astype(float) for k, v in predictions.items()}
        theirs = scipy_stats.bootstrap(
            (right["a"] - right["b"],),
            np.mean,
            n_resamples=4000,
            method="percentile",
            rng=np.random.default_rng(2),
        )
    else:

        def difference(a: np.ndarray, b: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
            r = scipy_stats.pearsonr
            return r(a, y, axis=axis).statistic - r(b, y, axis=axis).statistic

        theirs = scipy_stats.bootstrap(
            (predictions["a"], predictions["b"], labels),
            difference,
            paired=True,
            n_resamples=4000,
            method="percentile",
            rng=np.random.default_rng(2),
        )
    tolerance = 0.3 * float(theirs.standard_error)
    low, high = theirs.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=tolerance)


def test_the_interval_covers_the_truth_in_about_95_of_100_data_sets() -> None:
    """Simulated: a is right on 85 %, b on 80 % of all texts, and they share most of their errors.

    Over 600 data sets the observed coverage has a standard deviation of 0.9 points (binomial), so
    3 sd are 2.7; a percentile interval over 300 rows is itself about 0.5 points too narrow.
    """
    data_sets, inside, inside_single = 600, 0, 0
    for seed in range(data_sets):
        hardness = np.random.default_rng(seed).random(ROWS)
        luck = np.random.default_rng(seed + 10_000).random(ROWS) < 0.1
        a = np.where(luck, hardness < 0.85, hardness > 0.15)
        b = np.where(luck, hardness < 0.80, hardness > 0.20)
        labels = np.ones(ROWS, dtype=np.int64)
        both = bootstrap("accuracy", {"a": a, "b": b}, labels, resamples=400, seed=seed)
        difference, single = paired_bootstrap(both["a"], both["b"]), bootstrap_interval(both["a"])
        inside += difference.low <= 0.05 <= difference.high
        inside_single += single.low <= 0.85 <= single.high
    assert inside / data_sets == pytest.approx(0.945, abs=0.032)
    assert inside_single / data_sets == pytest.approx(0.945, abs=0.032)


def test_the_order_of_rows_moves_an_interval_by_no_more_than_another_seed_does() -> None:
    """Draws are by position, so another order is another draw of the same distribution."""
    labels = np.ones(2000, dtype=np.int64)
    model = answers(0.8, 1, rows=2000)
    shuffled = model[np.random.default_rng(0).permutation(2000)]
    here, there = (
        bootstrap_interval(bootstrap("accuracy", {"a": a}, labels, resamples=4000)["a"])
        for a in (model, shuffled)
    )
    standard_error = np.sqrt(0.8 * 0.2 / 2000)
    assert here.value == there.value
    assert (here.low, here.high) == pytest.approx((there.low, there.high), abs=0.3 * standard_error)


def test_renaming_the_classes_leaves_the_interval_of_accuracy_as_it_is() -> None:
    predictions, labels = two_models("accuracy")
    one = bootstrap("accuracy", {"a": predictions["a"]}, labels)["a"]
    renamed = bootstrap("accuracy", {"a": 1 - predictions["a"]}, 1 - labels)["a"]
    assert (one.resampled == renamed.resampled).all()


def test_more_rows_narrow_the_interval_by_the_root_of_their_number() -> None:
    widths = []
    for rows in (400, 6400):
        one = bootstrap(
            "accuracy", {"a": answers(0.8, 3, rows)}, np.ones(rows, dtype=np.int64), resamples=2000
        )["a"]
        interval = bootstrap_interval(one)
        widths.append(interval.high - interval.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.15)


def test_interval_takes_the_tails_of_what_was_resampled() -> None:
    one = Bootstrapped(0.5, np.arange(1001) / 1000, ("accuracy", 7, 1001, 0))
    interval = bootstrap_interval(one)
    assert (interval.low, interval.high, interval.n) == (
        pytest.approx(0.025),
        pytest.approx(0.975),
        7,
    )


@pytest.mark.parametrize("predictions", [np.zeros(4), np.zeros((5, 2)), np.zeros(0)])
def test_bootstrap_refuses_predictions_that_do_not_fit_the_labels(predictions: np.ndarray) -> None:
    labels = np.zeros(5 if len(predictions) else 0)
    with pytest.raises(ValueError, match="one prediction per row"):
        bootstrap("accuracy", {"a": predictions}, labels)


def test_spread_is_that_of_a_sample_and_a_single_run_has_none() -> None:
    several = spread([0.9, 0.92, 0.97, 0.89])
    assert several.mean == pytest.approx(0.92)
    assert several.sd == pytest.approx(np.std([0.9, 0.92, 0.97, 0.89], ddof=1))
    assert (several.max, several.n) == (0.97, 4)
    assert spread([0.9]).sd is None
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_ten_thousand_rows_need_memory_for_a_chunk_only() -> None:
    largest = max(counts.size for counts in resample_counts(10_000, 2000, seed=0))
    assert largest <= 2**20


def test_unless_asked_otherwise_two_thousand_resamples_are_drawn() -> None:
    """Fewer leave more of the interval's ends to chance than a report should."""
    found = bootstrap("accuracy", {"a": np.ones(5)}, np.ones(5))["a"]
    assert found.resampled.shape == (2000,)


@pytest.mark.parametrize("rows", [1, 30, 120, 5000])
def test_what_no_row_shows_is_bounded_as_by_clopper_and_pearson(rows: int) -> None:
    scipy = pytest.importorskip("scipy.stats")
    exact = scipy.binomtest(0, rows, alternative="less").proportion_ci(0.95, method="exact")
    assert most_unseen(rows) == pytest.approx(exact.high, rel=1e-9)
    assert most_unseen(rows) <= 3 / rows  # the rule of three


@pytest.mark.parametrize("metric", ["accuracy", "exact_match", "ndcg@10"])
def test_equal_rows_bound_a_mean_by_what_they_do_not_show(metric: str) -> None:
    for value in (0.0, 1.0):
        rows = np.full(120, value)
        interval = bootstrap_interval(bootstrap(metric, {"a": rows}, np.ones(120))["a"])
        ends = (0.0, most_unseen(120)) if value == 0 else (1 - most_unseen(120), 1.0)
        assert (interval.low, interval.high) == pytest.approx(ends)
    one_wrong = np.ones(120)
    one_wrong[0] = 0
    wrong = bootstrap_interval(bootstrap(metric, {"a": one_wrong}, np.ones(120))["a"])
    assert wrong.low < interval.low  # an error widens it


def test_equal_rows_tell_no_interval_of_f1() -> None:
    interval = bootstrap_interval(bootstrap("f1", {"a": np.ones(120)}, np.ones(120))["a"])
    assert (interval.low, interval.high) == (1.0, 1.0)
    assert interval_text("f1", interval.low, interval.high) == ""
    assert interval_text("accuracy", 0.98, 1.0) == "98.0 to 100.0"
