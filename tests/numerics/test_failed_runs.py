"""Which runs of a setting failed, on curves whose fate is known."""

from __future__ import annotations

import math
import random

import pytest

from attar.numerics.failed_runs import failed_runs

STEPS = 200


def good(seed: int, *, noise: float = 0.05, shift: float = 0.0) -> list[float]:
    """A loss from 8 towards 3 with noise of its own and a level of its own."""
    draw = random.Random(seed)
    level = draw.gauss(0, 0.02) + shift
    return [3 + 5 * math.exp(-t / 40) + level + draw.gauss(0, noise) for t in range(STEPS)]


def diverged_early(seed: int) -> list[float]:
    """As the others for a tenth, then up, and slowly down to a worse level."""
    fine = good(seed)
    return [
        loss if t < STEPS / 10 else 6 - 1.5 * t / STEPS + random.Random(t).gauss(0, 0.05)
        for t, loss in enumerate(fine)
    ]


def plateaued(seed: int) -> list[float]:
    """Falls until it meets 4.5, and stays."""
    return [max(loss, 4.5) for loss in good(seed)]


def runs(*others: list[float], count: int = 4) -> dict[str, list[float]]:
    curves = [good(seed) for seed in range(count)]
    return {f"seed={i}": curve for i, curve in enumerate([*curves, *others])}


@pytest.mark.parametrize("start", range(0, 100, 5))
def test_runs_that_all_went_well_are_none_of_them_failed(start: int) -> None:
    assert failed_runs({f"seed={i}": good(i) for i in range(start, start + 5)}) == ()


@pytest.mark.parametrize("bad", [diverged_early, plateaued])
def test_the_one_run_that_left_the_others_is_named(bad: object) -> None:
    assert callable(bad)
    assert failed_runs(runs(bad(9))) == ("seed=4",)


def test_two_of_five_can_fail() -> None:
    assert failed_runs(runs(diverged_early(8), plateaued(9), count=3)) == ("seed=3", "seed=4")


def test_a_run_better_than_the_others_is_luck() -> None:
    assert failed_runs(runs([loss - 1 for loss in good(9)])) == ()


def test_a_bad_time_that_heals_is_no_failure() -> None:
    spiked = good(9)
    spiked[20:140] = [7.0] * 120
    assert failed_runs(runs(spiked)) == ()


def test_a_loss_that_is_no_number_at_the_end_is_a_failure() -> None:
    assert failed_runs(runs([*good(9)[:-1], math.nan])) == ("seed=4",)


def test_runs_that_are_alike_do_not_fail_by_a_hair() -> None:
    curves = {f"seed={i}": [8.0, 5.0, 3.0, 3.0] for i in range(4)}
    assert failed_runs({**curves, "seed=4": [8.0, 5.0, 3.0, 3.01]}) == ()


def test_where_half_of_the_runs_are_bad_none_is_named() -> None:
    assert failed_runs(runs(plateaued(8), plateaued(9), count=2)) == ()
    assert failed_runs({"a": good(0), "b": plateaued(1)}) == ()
    broken = [*good(8)[:-1], math.nan]
    assert failed_runs(runs(broken, broken, count=2)) == ()
    assert failed_runs({}) == ()
