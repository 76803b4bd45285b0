"""The time left is corrected by what was measured, and unknown when it cannot be known."""

from __future__ import annotations

import pytest

from attar.recipe.time_left import TimeLeft


def test_the_first_answer_is_the_estimate() -> None:
    assert TimeLeft({"a": 10.0, "b": 5.0}).seconds(["a", "b"]) == 15.0


def test_measured_steps_rescale_the_rest() -> None:
    left = TimeLeft({"a": 10.0, "b": 10.0, "c": 30.0})
    left.made("a", 5.0)
    assert left.seconds(["b", "c"]) == pytest.approx(20.0)
    left.made("b", 25.0)
    assert left.seconds(["c"]) == pytest.approx(45.0)


def test_one_step_without_an_estimate_means_no_answer() -> None:
    left = TimeLeft({"a": 10.0})
    left.made("unknown", 3.0)
    assert left.seconds(["a", "b"]) is None
    assert left.seconds([]) is None
    assert left.seconds(["a"]) == 10.0
