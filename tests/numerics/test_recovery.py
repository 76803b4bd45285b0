"""Curves that cross, and shares of a gap."""

from __future__ import annotations

import numpy as np
import pytest

from attar.numerics.recovery import crossing, interpolated, recovered, seed_weights

COMPUTE = np.geomspace(1e9, 1e12, 61)


def _ahead(at: float, slope: float = 1.0) -> np.ndarray:
    """B's lead, which changes its sign at a budget."""
    return slope * (np.log(COMPUTE) - np.log(at))


def test_a_crossing_is_where_the_lead_changes_and_its_interval_holds_the_resamples() -> None:
    others = np.geomspace(1.5e10, 6e10, 200)
    found = crossing(COMPUTE, np.array([_ahead(3e10), *map(_ahead, others)]))
    assert found.leads and found.share == 1
    assert found.compute == pytest.approx(3e10)
    assert found.low == pytest.approx(1.5e10, rel=0.1)
    assert found.high == pytest.approx(6e10, rel=0.1)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_method_that_leads_at_the_end_is_named(sign: int) -> None:
    ahead = np.array([_ahead(3e10), _ahead(3e10)])
    found = crossing(COMPUTE, sign * ahead)
    assert found.leads == (sign > 0)
    assert found.compute == pytest.approx(3e10)


def test_a_lead_that_is_lost_and_regained_counts_from_the_last_time() -> None:
    lead = np.ones(61)
    lead[[10, 40]] = -1
    found = crossing(COMPUTE, np.array([lead, lead]))
    assert COMPUTE[40] < (found.compute or 0) < COMPUTE[41]


def test_curves_that_do_not_cross_have_no_place() -> None:
    for lead in (1.0, -1.0):
        found = crossing(COMPUTE, np.full((9, 61), lead))
        assert (found.leads, found.compute, found.share) == (lead > 0, None, 1)


def test_an_end_of_the_interval_may_lie_outside_what_was_measured() -> None:
    throughout, never, late = np.ones(61), -np.ones(61), _ahead(3e10)
    found = crossing(COMPUTE, np.array([late, *[late] * 8, throughout, never]))
    assert (found.low, found.high, found.share) == (None, None, 0.9)


def test_a_gap_closed_by_half_is_recovered_by_half() -> None:
    baseline, method = np.array([3.0, 3.1, 2.9]), np.array([2.5, 2.5, 2.5])
    found = recovered(baseline, method, teacher=2.0)
    assert found.value == 0.5
    assert found.low < 0.5 < found.high


def test_between_evaluations_losses_are_straight_over_log_compute() -> None:
    assert interpolated([1, 100], [3.0, 1.0], [1, 10, 100]).tolist() == pytest.approx([3, 2, 1])


def test_resamples_of_seeds_are_means_of_seeds() -> None:
    weights = seed_weights(3, 500, seed=1)
    assert weights[0].tolist() == pytest.approx([1 / 3] * 3)
    assert np.allclose(weights.sum(1), 1)
    assert np.allclose(weights[1:].mean(0), 1 / 3, atol=0.03)
