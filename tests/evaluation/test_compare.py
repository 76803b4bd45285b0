"""Differences: against whom, and in words that say no more than the figures do."""

from __future__ import annotations

import numpy as np
import pytest

from attar.evaluation.compare import differences, sentence
from attar.numerics.statistics import Difference, bootstrap

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (
            (-0.004, -0.011, 0.003),
            "no difference was found between int8 and student (int8 minus student: "
            f"{MINUS}0.4 points, 95 % interval {MINUS}1.1 to 0.3, n = 1,104).",
        ),
        (
            (0.021, 0.004, 0.036),
            "int8 is 2.1 points above student (95 % interval 0.4 to 3.6, n = 1,104).",
        ),
        (
            (-0.01, -0.02, -0.001),
            "int8 is 1.0 point below student (95 % interval 0.1 to 2.0, n = 1,104).",
        ),
        (
            (0.0, 0.0, 0.0),
            "no difference was found between int8 and student on n = 1,104 rows; with 95 % "
            "confidence, fewer than 0.27 % of all rows differ.",
        ),
        (
            (0.0003, 0.0001, 0.0006),
            "int8 is 0.03 points above student (95 % interval 0.01 to 0.06, n = 1,104).",
        ),
        (
            (0.021, 0.0001, 0.04),
            "int8 is 2.10 points above student (95 % interval 0.01 to 4.00, n = 1,104).",
        ),
    ],
)
def test_sentence_says_size_side_and_interval(
    figures: tuple[float, float, float], words: str
) -> None:
    assert sentence("int8", "student", "accuracy", Difference(*figures, 1104)) == words


def test_a_narrow_interval_of_a_language_metric_is_told_with_four_decimals() -> None:
    narrow, wide = Difference(0.012, 0.0056, 0.0184, 40), Difference(0.022, 0.0021, 0.0439, 40)
    assert "by 0.0120 nats per token (95 % interval 0.0056 to 0.0184," in sentence(
        "a", "b", "nll", narrow
    )
    assert "by 0.022 nats per token (95 % interval 0.002 to 0.044," in sentence(
        "a", "b", "nll", wide
    )


@pytest.mark.parametrize("metric", ["nll", "perplexity", "bits_per_byte"])
def test_more_of_a_language_metric_is_worse(metric: str) -> None:
    more = Difference(0.2, 0.1, 0.3, 40)
    assert sentence("a", "b", metric, more).startswith("a is worse than b by 0.200 ")
    less = Difference(-0.2, -0.3, -0.1, 40)
    assert sentence("a", "b", metric, less).startswith("a is better than b by 0.200 ")


def test_sentence_names_every_metric_but_accuracy() -> None:
    below = Difference(-0.05, -0.08, -0.02, 400)
    assert sentence("a", "b", "matthews", below).startswith("a is 5.0 points of matthews below b (")
    level = Difference(0.0, -0.01, 0.01, 400)
    assert sentence("a", "b", "f1", level).startswith("no difference in f1 was found between a and")
    assert sentence("a", "b", "accuracy", level).startswith("no difference was found between a and")


def test_differences_are_against_the_first_and_the_one_before_and_never_twice() -> None:
    labels = np.array([0, 1] * 40)
    models = {name: np.where(np.arange(80) < i, 1 - labels, labels) for i, name in enumerate("abc")}
    metrics = {m: bootstrap(m, models, labels, resamples=100) for m in ("accuracy", "f1")}
    found = differences(["a", "b", "c"], metrics)
    assert [(d["model"], d["against"], d["metric"]) for d in found] == [
        ("b", "a", "accuracy"),
        ("b", "a", "f1"),
        ("c", "a", "accuracy"),
        ("c", "a", "f1"),
        ("c", "b", "accuracy"),
        ("c", "b", "f1"),
    ]
    assert found[2]["value"] == pytest.approx(-2 / 80)
    assert found[2]["ci95"][0] < found[2]["value"] <= found[2]["ci95"][1]
    assert found[2]["n"] == 80
    assert differences(["a"], metrics) == []


def test_verdict_of_the_figures_is_that_of_the_sentence() -> None:
    labels = np.ones(500, dtype=np.int64)
    much_worse = np.where(np.arange(500) < 100, 0, 1)
    metrics = {"accuracy": bootstrap("accuracy", {"good": labels, "bad": much_worse}, labels)}
    (difference,) = differences(["good", "bad"], metrics)
    assert difference["within_noise"] is False
    assert difference["sentence"].startswith("bad is 20.0 points below good (")
