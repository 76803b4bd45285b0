"""Statistics over runs keep the form of the metrics."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.recipe.outcome.aggregate import aggregated, means

ROUNDING = 1e-6
"""Values reach 1e6, of which float64 holds ten more digits; the library's sums are exact."""


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_a_number_becomes_its_statistics(values: list[float]) -> None:
    found = aggregated([{"inner": {"loss": value}} for value in values])["inner"]["loss"]
    assert found["mean"] == pytest.approx(statistics.fmean(values), abs=ROUNDING)
    assert found["sd"] == pytest.approx(statistics.stdev(values), abs=ROUNDING)
    assert (found["max"], found["n"]) == (max(values), len(values))


def test_one_run_has_no_standard_deviation() -> None:
    assert aggregated([{"loss": 2.0}])["loss"]["sd"] is None


def test_a_quantity_with_an_interval_counts_by_its_value() -> None:
    runs = [{"accuracy": {"value": v, "ci95": [0, 1], "n": 872}} for v in (0.8, 0.9)]
    assert aggregated(runs)["accuracy"]["mean"] == pytest.approx(statistics.fmean([0.8, 0.9]))
    assert aggregated(runs)["accuracy"]["n"] == 2


def test_copies_meet_under_the_name_that_was_written() -> None:
    runs = [{"models": {f"int8@seed={s}": {"size_mib": s}, "teacher": {"x": 1}}} for s in (1, 3)]
    assert means(aggregated(runs)) == {"models": {"int8": {"size_mib": 2.0}, "teacher": {"x": 1.0}}}


def test_words_lists_and_truth_values_are_left_out() -> None:
    assert (
        aggregated([{"name": "a", "list": [1], "ok": True, "none": None, "deep": {"b": "c"}}]) == {}
    )


def test_what_only_some_runs_measured_says_how_many() -> None:
    assert aggregated([{"a": 1}, {"a": 3, "b": 5}])["b"]["n"] == 1
