"""One kind for a whole column of labels, and every class keeps the name that is written."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.labels import (
    MAX_CLASSES,
    Classes,
    Missing,
    find_classes,
    label_as_written,
)
from attar.errors import DataError


def names_of(*labels: Any) -> tuple[str, ...]:
    return find_classes(labels, "label")[0]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([f"{i:02d}" for i in range(2, 11)], tuple(f"{i:02d}" for i in range(2, 11))),
        (["007", "7"], ("007", "7")),
        (["+1", "-1"], ("+1", "-1")),
        (["1e3", "10"], ("10", "1e3")),
        (["1,000", "2"], ("1,000", "2")),
        (["2024-01-02", date(2023, 5, 6)], ("2023-05-06", "2024-01-02")),
        ([True, False], ("false", "true")),
        (["True", "False"], ("False", "True")),
        ([0.5, 1.0, "1.5"], ("0.5", "1", "1.5")),
        (["10", "9", 9.0, "9.0", Decimal("9.00")], ("9", "10")),
        ([1, -1], ("-1", "1")),
        (["10", "9", "ten"], ("10", "9", "ten")),
    ],
)
def test_a_column_is_whole_numbers_or_names_as_written(
    labels: list[Any], classes: tuple[str, ...]
) -> None:
    found = names_of(*labels)
    assert found == classes
    read = Classes(found)
    assert [type(read.place_of(label)) for label in labels] == [int] * len(labels)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(-20, 20),
            st.floats(),
            st.booleans(),
            st.sampled_from(["01", "1", "1.0", " x", "X", "NA", "nan", "", "1e3", "-1", "+1"]),
            st.text(max_size=3),
            st.none(),
        ),
        min_size=2,
        max_size=30,
    )
)
def test_every_label_of_train_is_a_class_or_says_why_not(labels: list[Any]) -> None:
    try:
        classes = Classes(names_of(*labels))
    except DataError:  # fewer than two
        return
    for label in labels:
        place = classes.place_of(label)
        if isinstance(place, Unreadable):
            is_missing = isinstance(place, Missing)
            assert is_missing or not isinstance(label, str) or not label.strip().isprintable()
        else:
            assert 0 <= place < len(classes.names)


def test_the_order_of_rows_and_the_share_of_a_kind_do_not_matter() -> None:
    assert names_of("b", *["3"] * 50) == names_of(*["3"] * 50, "b") == ("3", "b")


def test_two_splits_may_write_one_number_in_two_ways() -> None:
    classes = Classes(names_of("1.0", "0.0"))
    assert classes.names == ("0", "1")
    assert [classes.place_of(label) for label in ("1", 1, 1.0, " 1.00 ")] == [1] * 4
    given = Classes(("0.0", "1.0"))
    assert [given.place_of(label) for label in ("1", 1, "1.0")] == [1] * 3


@pytest.mark.parametrize(
    ("label", "classes", "reason"),
    [
        ("Pos", ("neg", "pos"), "unknown label 'Pos' (is it 'pos'?)"),
        ('"pos"', ("neg", "pos"), "unknown label '\"pos\"' (is it 'pos'?)"),
        ("not-x", ("not_x", "x"), "unknown label 'not-x' (is it 'not_x'?)"),
        ("01", ("1", "2"), "unknown label '01'"),
        (1, ("01", "02"), "unknown label '1'"),
        ("true", ("0", "1"), "unknown label 'true'"),
        (2, ("no", "yes"), "unknown label '2'"),
        ("9" * 5000, ("no", "yes"), "unknown label '" + "9" * 40 + "…'"),
        (math.nan, ("no", "yes"), "NaN label"),
        ("nan", ("no", "yes"), "missing label 'nan'"),
        ("NA", ("0", "1"), "missing label 'NA'"),
        ("", ("no", "yes"), "empty label"),
        (None, ("no", "yes"), "unlabelled"),
        (-1, ("no", "yes"), "unlabelled"),
        (math.inf, ("no", "yes"), "label is infinite"),
        ([0], ("no", "yes"), "label is neither a name nor a number"),
        ("\ud800", ("no", "yes"), "half a character (a lone surrogate)"),
        ("a\0", ("no", "yes"), "NUL byte in label"),
    ],
)
def test_a_label_that_is_no_class_has_its_reason(
    label: Any, classes: tuple[str, ...], reason: str
) -> None:
    found = Classes(classes, may_be_indices=True).place_of(label)
    assert isinstance(found, Unreadable)
    assert found.reason == reason


def test_whole_numbers_are_indices_only_where_they_may_be_and_no_name_is_one() -> None:
    names = ("negative", "positive")
    assert Classes(names, may_be_indices=True).place_of("1.0") == 1
    assert isinstance(Classes(names).place_of(1), Unreadable)
    assert isinstance(Classes(names, may_be_indices=True).place_of(2), Unreadable)
    numbers = Classes(("1", "2", "x"), may_be_indices=True)
    assert isinstance(numbers.place_of(0), Unreadable)
    assert numbers.place_of(2) == 1


def test_words_for_missing_values_are_missing_among_numbers_and_names_among_names() -> None:
    assert find_classes(["0", "1", "NA", "nan"], "y") == (("0", "1"), ())
    classes, notes = find_classes(["de", "fr", "NA", "NA"], "country")
    assert classes == ("NA", "de", "fr")
    assert "'country': 'NA' (2 rows) is treated as a class" in notes[0]
    assert find_classes(["None", "null"], "y")[0] == ("None", "null")


def test_what_may_be_a_slip_is_said_and_nothing_is_changed() -> None:
    classes, notes = find_classes(["pos", "Pos", "neg", 3, 3], "y")
    assert classes == ("3", "Pos", "neg", "pos")
    assert "also the numbers '3' (2 rows)" in notes[0]
    assert "'Pos' (1 rows), 'pos' (1 rows) are 2 classes with almost the same spelling" in notes[1]
    assert find_classes(["01", "10", "2.5"], "y")[1] == ()
    assert find_classes(["a", "b"], "y")[1] == ()


def test_a_column_that_holds_no_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 different label in 3 rows \('a'; 1 × unlabelled\)"):
        find_classes(["a", "a", None], "label")
    with pytest.raises(DataError, match=r"0 different labels .*\(none; 2 × half a char.*; 1 × NUL"):
        find_classes(["\ud800", "\ud800", "a\0"], "label")
    assert len(names_of(*range(MAX_CLASSES), 0)) == MAX_CLASSES
    with pytest.raises(DataError, match=r"1001 different labels.*objective"):
        find_classes([*range(MAX_CLASSES + 1), 0], "label")


def test_classes_with_one_row_are_told_and_refused_where_there_are_no_others() -> None:
    codes = [f"c{i}" for i in range(12)]
    with pytest.raises(DataError, match=r"12 different labels in 12 rows .*one row a class.*merge"):
        find_classes(codes, "label")
    note = find_classes([*codes, *codes[2:]], "label")[1][0]
    assert "classes with one row: 2 of 12 ('c0', 'c1')" in note and "add rows" in note


def test_a_typed_number_and_its_text_are_one_label() -> None:
    for value in (3, 3.0, "3", Decimal(3)):
        assert label_as_written(value) == "3"
    assert label_as_written(1e300) == str(int(1e300))
