"""Laws of paired comparison over seeds, and agreement with scipy's."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.numerics.paired import (
    EXACT_UP_TO,
    Paired,
    mean_over_tasks,
    paired,
    sign_flip_p,
    t_quantile,
)

ROUNDING = 1e-12
"""Scores lie near 1; a few operations cost float64 three or four of its 16 digits."""


def two_methods(
    seeds: int, gain: float = 0.0, noise: float = 0.01, at: int = 0
) -> tuple[list[float], list[float]]:
    """Scores that share what a seed does to both (0.05) and differ by a gain and noise."""
    random = np.random.default_rng(at)
    shared = 0.8 + 0.05 * random.normal(size=seeds)
    ours = shared + gain + noise * random.normal(size=seeds)
    return list(ours), list(shared + noise * random.normal(size=seeds))


def opposite(found: Paired) -> Paired:
    assert found.low is not None
    assert found.high is not None
    losses = found.n - found.wins - found.ties
    return replace(found, mean=-found.mean, low=-found.high, high=-found.low, wins=losses)


@pytest.mark.parametrize("seeds", [3, 4, 9, 20])
def test_a_difference_turned_round_is_its_opposite(seeds: int) -> None:
    ours, theirs = two_methods(seeds, gain=0.004)
    assert paired(theirs, ours) == opposite(paired(ours, theirs))


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=3, max_size=9))
def test_what_a_seed_does_to_both_methods_does_not_matter(hits: list[tuple[int, int]]) -> None:
    ours, theirs = ([hit / 1000 for hit in side] for side in zip(*hits, strict=True))
    moved = [0.3 * math.sin(seed) for seed in range(len(hits))]
    here = paired(ours, theirs)
    ours, theirs = ([x + m for x, m in zip(side, moved, strict=True)] for side in (ours, theirs))
    there = paired(ours, theirs)
    pairs = zip(vars(here).values(), vars(there).values(), strict=True)
    assert all(a == pytest.approx(b, abs=ROUNDING) for a, b in pairs)


def test_a_gain_added_to_one_method_moves_the_mean_and_both_ends_by_it() -> None:
    ours, theirs = two_methods(5)
    here, there = paired(ours, theirs), paired([x + 0.125 for x in ours], theirs)
    moved = [(getattr(there, end), getattr(here, end)) for end in ("mean", "low", "high")]
    gains = [after - before for after, before in moved]
    assert gains == pytest.approx([0.125] * 3, abs=ROUNDING)
    assert there.sd == pytest.approx(here.sd, abs=ROUNDING)


def test_identical_methods_are_inside_the_noise_with_p_one() -> None:
    same = two_methods(6)[0]
    found = paired(same, list(same))
    assert (found.mean, found.sd, found.low, found.high) == (0.0, 0.0, 0.0, 0.0)
    assert (found.p, found.wins, found.ties, found.within_noise) == (1.0, 0, 6, True)


def test_scores_that_differ_by_rounding_are_a_tie() -> None:
    found = paired([0.1 + 0.2, 0.5, 0.7], [0.3, 0.5, 0.7])
    assert (found.mean, found.ties, found.p) == (0.0, 3, 1.0)


def test_a_planted_gain_is_found_where_unpaired_means_would_not_show_it() -> None:
    ours, theirs = two_methods(8, gain=0.03)
    found = paired(ours, theirs)
    assert found.verdict == "better"
    assert found.p == 2 / 2**8
    assert paired(theirs, ours).verdict == "worse"
    assert scipy.stats.ttest_ind(ours, theirs).pvalue > 0.05


def test_noise_alone_is_inside_the_noise() -> None:
    """Of twenty such draws one leaves its interval; how many do is the law further down."""
    assert paired(*two_methods(8, at=1)).verdict == "not significant"


@pytest.mark.parametrize("seeds", [1, 2])
def test_of_one_or_two_seeds_nothing_is_claimed(seeds: int) -> None:
    ours, theirs = two_methods(seeds, gain=0.5)
    found = paired(ours, theirs)
    assert (found.low, found.high, found.p) == (None, None, None)
    assert found.within_noise is None
    assert found.verdict == "too few to tell"
    assert (found.sd is None) == (seeds == 1)


@pytest.mark.parametrize(("seeds", "floor"), [(3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_p_has_the_floor_that_the_number_of_signs_sets(seeds: int, floor: float) -> None:
    assert paired(*two_methods(seeds, gain=0.5)).p == floor


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_interval_and_p_are_scipys(seeds: int) -> None:
    ours, theirs = two_methods(seeds, gain=0.004)
    found = paired(ours, theirs)
    interval = scipy.stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=ROUNDING)
    signs = scipy.stats.permutation_test(
        (ours, theirs), lambda a, b: np.mean(a - b), permutation_type="samples", vectorized=False
    )
    assert found.p == pytest.approx(signs.pvalue, abs=ROUNDING)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 999])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_quantiles_of_student_are_scipys(level: float, degrees: int) -> None:
    theirs = scipy.stats.t.ppf((1 + level) / 2, degrees)
    assert t_quantile(level, degrees) == pytest.approx(theirs, rel=ROUNDING)


def test_the_interval_holds_the_true_gain_in_95_of_100_experiments() -> None:
    experiments, gain = 2000, 0.01
    random = np.random.default_rng(11)
    theirs = random.normal(size=(experiments, 4))
    ours = theirs + gain + 0.1 * random.normal(size=(experiments, 4))
    found = [paired(list(a), list(b)) for a, b in zip(ours, theirs, strict=True)]
    intervals = [(f.low, f.high) for f in found if f.low is not None and f.high is not None]
    assert len(intervals) == experiments
    held = np.mean([low <= gain <= high for low, high in intervals])
    # The share's own standard error is 0.5 %.
    assert held == pytest.approx(0.95, abs=0.015)


def test_under_no_difference_p_is_below_5_percent_no_more_often_than_that() -> None:
    random = np.random.default_rng(3)
    values = [sign_flip_p(random.standard_cauchy(8)) for _ in range(1000)]
    assert np.mean(np.asarray(values) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_sixteen_seeds_are_still_counted_exactly() -> None:
    assert sign_flip_p([1.0] * 16) == 2 / 2**16


def test_with_many_seeds_drawn_signs_agree_with_all_signs() -> None:
    random = np.random.default_rng(5)
    differences = random.normal(0.4, 1, EXACT_UP_TO)
    exact = sign_flip_p(differences)
    doubled = np.concatenate([differences, np.zeros(4)])  # a zero has no sign: p stays
    assert sign_flip_p(doubled) == pytest.approx(exact, abs=4 * math.sqrt(exact / 2**EXACT_UP_TO))
    assert sign_flip_p(doubled) == sign_flip_p(doubled)
    assert 0 < sign_flip_p(np.ones(40)) <= 1e-4


@pytest.mark.parametrize("pair", [([], []), ([1.0], [1.0, 2.0])])
def test_unequal_or_empty_lists_are_refused(pair: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="a pair or more"):
        paired(*pair)


def test_a_mean_over_tasks_keeps_the_seeds_that_every_task_has() -> None:
    scores = {"a": {"0": 0.5, "1": 1.0, "2": 0.1}, "b": {"1": 0.5, "0": 0.25}}
    assert mean_over_tasks(scores) == {"0": 0.375, "1": 0.75}
