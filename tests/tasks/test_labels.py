"""Classes are the same by name, never by place."""

from __future__ import annotations

import itertools

import pytest

from attar.tasks.labels import match_classes, why_not_matched

MNLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize("given", list(itertools.permutations(MNLI)))
def test_order_never_counts(given: tuple[str, ...]) -> None:
    match = match_classes(given, MNLI)
    assert match is not None and match.said == ""
    assert tuple(given[place] for place in match.order) == MNLI


@pytest.mark.parametrize(
    "given",
    [
        ("not entailment", "entailment"),
        ("Not-Entailment", "ENTAILMENT"),
        ("NOT_ENTAILMENT", " entailment "),
    ],
)
def test_case_and_what_parts_words_are_seen_through_and_said(given: tuple[str, ...]) -> None:
    match = match_classes(given, ("entailment", "not_entailment"))
    assert match is not None and match.order == (1, 0)
    assert f"{given[0]!r} is taken for 'not_entailment'" in match.said


def test_an_equal_name_goes_first_and_is_not_said() -> None:
    match = match_classes(("Good", "good"), ("good", "GOOD"))
    assert match is not None and match.order == (1, 0)
    assert match.said == "'Good' is taken for 'GOOD'"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("a_b", "A b"), ("a-b", "c")),
        (("a_b", "c"), ("a-b", "A B")),
        (("a_b", "A b"), ("a-b", "A B")),
        (("-a", "b"), ("_a", "b")),
        (("positive", "negative"), ("pos", "neg")),
        (("a+", "b"), ("a-", "b")),
        (("1", "2"), ("-1", "2")),
        (("a", "b", "c"), ("a", "b")),
        (("a", "a"), ("a", "b")),
    ],
)
def test_what_would_be_a_guess_is_no_match(given: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    assert match_classes(given, wanted) is None


def test_a_refusal_lists_each_class_once_where_no_name_is_common() -> None:
    said = why_not_matched(["LABEL_0", "LABEL_1"], ["bad", "fair", "good"], "config.json")
    assert match_classes(["LABEL_0", "LABEL_1"], ["bad", "fair", "good"]) is None
    assert said.count("LABEL_1") == said.count("'fair'") == 1
    assert why_not_matched(["bad", "x"], ["bad", "good"], "c").count("'bad'") == 2
