"""Exact match and F1 as in SQuAD's script, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from attar.numerics.squad import best_threshold, exact_match, normalized, squad_f1

CASES = [
    ("the Eiffel Tower", ["Eiffel Tower"], 1.0, 1.0),  # an article
    ("Eiffel Tower.", ["the eiffel tower"], 1.0, 1.0),  # punctuation and case
    ("in Paris", ["Paris"], 0.0, 2 / 3),
    ("Paris, France", ["Paris", "Lyon, France", "Paris, France!"], 1.0, 1.0),  # the best of many
    ("a dog and a dog", ["dog"], 0.0, 2 / 4),  # a word counts as often as both have it
    ("another", ["an other"], 0.0, 0.0),  # no article inside a word
    ("well-known", ["wellknown"], 1.0, 1.0),  # a hyphen leaves no space
    ("", [], 1.0, 1.0),
    ("something", [], 0.0, 0.0),
    ("", ["something"], 0.0, 0.0),
]


@pytest.mark.parametrize(("answer", "golds", "exact", "f1"), CASES)
def test_answers_are_compared_as_the_script_does(
    answer: str, golds: list[str], exact: float, f1: float
) -> None:
    assert exact_match(answer, golds) == exact
    assert squad_f1(answer, golds) == pytest.approx(f1)


def test_golds_of_articles_alone_are_no_answers() -> None:
    """As in version 2.0's script, where such an answer is one that is not there."""
    assert squad_f1("", ["the"]) == exact_match("", ["the"]) == 1.0
    assert normalized("A  the\tan ") == ""


def script(no_answer: np.ndarray, f1: np.ndarray, has_answer: np.ndarray) -> float:
    """The best F1, summed, of all thresholds that can be told apart."""
    limits = [-np.inf, *no_answer]
    return max(
        float(np.where(no_answer > limit, ~has_answer, np.where(has_answer, f1, 0.0)).sum())
        for limit in limits
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_has_the_best_f1_of_all(seed: int) -> None:
    draw = np.random.default_rng(seed)
    no_answer = draw.integers(-4, 4, 12).astype(np.float64)  # with equals
    has_answer = draw.random(12) < 0.6
    f1 = np.where(has_answer, draw.random(12), 0.0)
    chosen = best_threshold(no_answer, f1, has_answer)
    is_given = no_answer <= chosen
    reached = np.where(is_given, np.where(has_answer, f1, 0.0), ~has_answer).sum()
    assert reached == pytest.approx(script(no_answer, f1, has_answer))


def test_the_threshold_lies_midway_between_two_questions() -> None:
    scores, has_answer = np.array([4.0, -1.0, -3.0, 6.0]), np.array([False, True, True, False])
    assert best_threshold(scores, has_answer * 1.0, has_answer) == 1.5
    assert best_threshold(scores, np.ones(4), np.ones(4, dtype=bool)) == 6.0


def test_where_answers_are_always_wrong_none_is_given() -> None:
    none = best_threshold(np.array([0.5, 0.7]), np.zeros(2), np.array([False, False]))
    assert none < 0.5
