"""A ratio of damages is as wide as its rows and its random choices make it, and no narrower."""

from __future__ import annotations

import numpy as np
import pytest

from attar.numerics.damage import Ratio, damage_of, damages, standard_error
from attar.numerics.metric_names import LANGUAGE
from attar.numerics.metrics import METRICS_OF_COUNTS
from attar.numerics.statistics import Bootstrapped, bootstrap

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 400)


def answers(share_right: float, seed: int) -> np.ndarray:
    """Right in this share of the rows: the first ones of an order of its own."""
    order = np.random.default_rng(seed).permutation(len(LABELS))
    wrong = order[round(share_right * len(LABELS)) :]
    found = LABELS.copy()
    found[wrong] = 1 - found[wrong]
    return found


def scored(shares: dict[str, float], metric: str = "accuracy") -> dict[str, Bootstrapped]:
    predictions = {name: answers(share, 7 + n) for n, (name, share) in enumerate(shares.items())}
    return bootstrap(metric, predictions, LABELS, resamples=1000, seed=3)


def test_damages_are_differences_and_their_ratio_is_a_quotient() -> None:
    one = scored({"full": 0.9, "out": 0.5, "a": 0.85, "b": 0.75})
    found = damages(one["full"], one["out"], [one["a"], one["b"]], seed=0)
    values = (found.outlier.value, found.null.value, found.excess.value, found.ratio.value)
    assert values == pytest.approx((0.4, 0.1, 0.3, 4.0), rel=1e-12)  # a few float64 operations
    assert 1 < found.ratio.low < 4 < found.ratio.high
    assert found.excess.low < 0.3 < found.excess.high
    assert (found.as_bad, found.p_value) == (0, pytest.approx(1 / 3))
    assert found.outlier == damage_of(one["full"], one["out"])


def test_intervals_are_the_central_95_percent_of_the_resamples() -> None:
    spread = np.random.default_rng(5).normal(0, 0.05, 999)
    draw = ("accuracy", 400, 999, 0)
    full, out, null = (
        Bootstrapped(value, resampled, draw)
        for value, resampled in (
            (0.9, np.full(999, 0.9)),
            (0.5, 0.5 + spread),
            (0.8, np.full(999, 0.8)),
        )
    )
    found = damages(full, out, [null], seed=0)
    low, high = np.quantile(0.4 - spread, [0.025, 0.975])
    assert (found.outlier.low, found.outlier.high) == pytest.approx((low, high), rel=1e-12)
    # of 999 ratios the 25th and the 975th: harm over a null that always costs 0.1
    ratios = np.sort((0.4 - spread) / 0.1)
    assert (found.ratio.low, found.ratio.high) == pytest.approx((ratios[24], ratios[974]), rel=1e-9)
    assert {found.outlier.n, found.null.n, found.excess.n} == {400}


def test_a_null_that_does_no_damage_leaves_the_ratio_without_an_upper_end() -> None:
    one = scored({"full": 0.9, "out": 0.5, "a": 0.9, "b": 0.895})
    found = damages(one["full"], one["out"], [one["a"], one["b"]], seed=0)
    assert found.null.within_noise
    assert 5 < found.ratio.low < found.ratio.high == np.inf
    better = damages(one["full"], one["out"], [one["full"]], seed=0)
    assert better.ratio == Ratio(None, np.inf, np.inf)
    assert (better.null.low, better.null.high) == (0.0, 0.0)


def test_what_does_no_damage_is_not_claimed_to_do_infinitely_much() -> None:
    one = scored({"full": 0.8, "out": 0.8, "a": 0.8})
    found = damages(one["full"], one["full"], [one["full"]], seed=0)
    assert found.ratio == Ratio(None, -np.inf, -np.inf)
    assert found.p_value == 1.0


def test_choices_that_differ_widen_the_interval() -> None:
    one = scored({"full": 0.9, "out": 0.5, "a": 0.82, "b": 0.83, "c": 0.6, "d": 0.9})
    alike = damages(one["full"], one["out"], [one["a"], one["b"]], seed=0).null
    apart = damages(one["full"], one["out"], [one["c"], one["d"]], seed=0).null
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


def test_damage_is_what_is_lost_also_where_lower_is_better() -> None:
    tokens = np.full(50, 10.0)
    nats = RNG.normal(30, 1, 50)
    for metric in LANGUAGE:
        one = bootstrap(metric, {"full": nats, "worse": nats + 5}, tokens, resamples=200, seed=0)
        assert damage_of(one["full"], one["worse"]).low > 0


def test_language_metrics_are_ratios_of_sums() -> None:
    nats, tokens = np.array([2.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0])
    counts = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]])
    nll = METRICS_OF_COUNTS["nll"](nats, tokens, counts)
    assert nll == pytest.approx([15 / 6, 2.0])
    assert METRICS_OF_COUNTS["perplexity"](nats, tokens, counts) == pytest.approx(np.exp(nll))
    assert METRICS_OF_COUNTS["bits_per_byte"](nats, tokens, counts) == pytest.approx(
        nll / np.log(2)
    )
    assert np.isfinite(METRICS_OF_COUNTS["perplexity"](1e6 * nats, tokens, counts)).all()


def test_the_standard_error_of_a_share_is_the_binomial_one() -> None:
    assert standard_error(scored({"full": 0.9})["full"]) == pytest.approx(0.015, rel=0.1)


def test_a_damage_needs_a_choice_on_the_same_rows() -> None:
    one = scored({"full": 0.9, "out": 0.5})
    with pytest.raises(ValueError, match="at least one random choice"):
        damages(one["full"], one["out"], [], seed=0)
    other = bootstrap("accuracy", {"a": LABELS}, LABELS, resamples=1000, seed=4)["a"]
    with pytest.raises(ValueError, match="same draws"):
        damages(one["full"], one["out"], [other], seed=0)
