"""Every row is kept or set aside, and the reason is the right one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.data.reading import rows
from attar.data.reading.byte_lines import MAX_ROW_BYTES, Unreadable
from attar.data.reading.records import Record
from attar.data.reading.rows import (
    Columns,
    Taken,
    check_set_aside,
    find_label_names,
    settle_labels,
    take_texts,
)
from attar.data.tables import UNLABELLED, SetAside
from attar.errors import DataError

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just([1]),
    st.just("a\0"),
)
RECORDS = st.lists(
    st.one_of(
        st.just(Unreadable("not JSON")),
        st.dictionaries(st.sampled_from(["text", "label", "id"]), ANYTHING),
        st.fixed_dictionaries(
            {"text": st.just("fine"), "label": st.sampled_from(["a", "b", 0, 1])}
        ),
    ),
    max_size=30,
)
COLUMNS = Columns(("text",), "label", "id")


@settings(max_examples=200, deadline=None)
@given(RECORDS, st.booleans(), st.booleans(), st.booleans())
def test_kept_and_set_aside_rows_are_exactly_those_read(
    records: list[Record | Unreadable], is_regression: bool, may_lack: bool, indices: bool
) -> None:
    taken = take_texts(records, COLUMNS, "train")
    split, faults = settle_labels(
        taken,
        ("a", "b"),
        is_regression=is_regression,
        may_lack_labels=may_lack,
        may_be_indices=indices,
    )
    assert taken.num_read == len(records)
    assert len(split) + len(faults) == len(records)
    assert len({fault.row for fault in faults}) == len(faults)
    assert len(split.labels) == len(split.texts)
    if not is_regression:
        assert set(split.labels.tolist()) <= {UNLABELLED, 0, 1}
    assert split.is_labelled or may_lack


def labels_of(values: list[Any], names: tuple[str, ...], **how: bool) -> list[Any]:
    """Each value's class, or the reason why its row was set aside."""
    taken = take_texts(
        [{"text": "t", "label": value} for value in values], Columns(("text",), "label"), "s"
    )
    split, faults = settle_labels(taken, names, **how)
    reasons = {fault.row: fault.reason for fault in faults}
    classes = iter(split.labels.tolist())
    return [reasons[row] if row in reasons else next(classes) for row in range(len(values))]


def test_one_class_may_be_written_in_several_ways() -> None:
    assert labels_of([1, "1", 1.0, " 1 "], ("0", "1")) == [1, 1, 1, 1]
    assert labels_of([True, "false"], ("false", "true")) == [1, 0]


def test_integers_are_indices_only_where_they_may_be() -> None:
    names = ("negative", "positive")
    assert labels_of([1, "positive"], names, may_be_indices=True) == [1, 1]
    assert labels_of([1, "positive"], names) == ["unknown label", 1]
    assert labels_of([0, 1, 3], ("1", "2", "3"), may_be_indices=True) == ["unknown label", 0, 2]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "NaN label"),
        ("nan", "NaN label"),
        ("", "empty label"),
        (2, "unknown label"),
        ("other", "unknown label"),
        (0.5, "label is neither class nor name"),
        ([0], "label is neither class nor name"),
        (None, "unlabelled"),
        (-1, "unlabelled"),
        ("9" * 5000, "unknown label"),
    ],
)
def test_a_label_that_is_no_class_has_its_reason(value: Any, reason: str) -> None:
    assert labels_of([value], ("no", "yes"), may_be_indices=True) == [reason]


def test_hidden_labels_are_kept_where_they_may_lack() -> None:
    assert labels_of([None, -1, 1], ("a", "b"), may_lack_labels=True, may_be_indices=True) == [
        -1,
        -1,
        1,
    ]
    hidden = labels_of([None, 2.5], (), is_regression=True, may_lack_labels=True)
    assert math.isnan(hidden[0])
    assert hidden[1] == 2.5


@pytest.mark.parametrize("value", ["many", True, [1], "", math.inf, math.nan, 10**400])
def test_a_number_is_finite_or_set_aside(value: Any) -> None:
    (found,) = labels_of([value], (), is_regression=True)
    assert found in ("label is no number", "NaN label")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no text"),
        (3, "text is no text"),
        (" \t", "empty text"),
        ("a\0b", "NUL byte in text"),
        ("\ud800", "not UTF-8"),
        ("é" * (MAX_ROW_BYTES // 2 + 1), "longer than 512 KiB"),
    ],
)
def test_a_text_that_cannot_be_read_has_its_reason(text: Any, reason: str) -> None:
    taken = take_texts([{"text": text, "label": 0}], COLUMNS, "train")
    assert [fault.reason for fault in taken.set_aside] == [reason]


def test_the_first_row_of_an_id_stays() -> None:
    records = [{"text": word, "label": 0, "id": 7} for word in ("one", "two")]
    taken = take_texts([*records, {"text": "three", "label": 0}], COLUMNS, "train")
    assert taken.texts == [("one",), ("three",)]
    assert taken.set_aside == [SetAside("train", 1, "duplicate id")]


def taken_with(labels: list[Any]) -> Taken:
    return take_texts([{"text": "t", "label": label} for label in labels], COLUMNS, "train")


def test_classes_are_the_sorted_labels_of_the_more_frequent_kind() -> None:
    assert find_label_names(taken_with([10, 9, 9, "ten"]), "label") == ("9", "10")
    assert find_label_names(taken_with(["b", "a", 3, math.nan]), "label") == ("a", "b")


def test_a_column_that_holds_no_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 different labels in 3 usable rows \('a'\)"):
        find_label_names(taken_with(["a", "a", None]), "label")
    with pytest.raises(DataError, match=r"1001 different labels.*objective"):
        find_label_names(taken_with(list(range(1001))), "label")


def test_set_aside_is_borne_up_to_its_limit_and_not_beyond() -> None:
    faults = [SetAside("train", 5, "NaN label"), SetAside("train", 8, "empty text")]
    check_set_aside("toy", "train", 100, faults, 0.02)
    with pytest.raises(DataError, match=r"2 of 100 rows.*2\.0%.*1\.0%(?s:.*)1 × NaN label: row 5"):
        check_set_aside("toy", "train", 100, faults, 0.01)
    with pytest.raises(DataError, match="2 of 2 rows"):
        check_set_aside("toy", "train", 2, faults, 1.0)
    with pytest.raises(DataError, match="is empty: 0 rows"):
        check_set_aside("toy", "train", 0, [], 1.0)


def test_counting_faults_ends_before_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_FAULTS", 10)
    with pytest.raises(DataError, match="more than 10 of its first 11 rows"):
        take_texts(({} for _ in range(100)), COLUMNS, "train")


def test_labels_are_whole_numbers_and_scores_are_single_precision() -> None:
    taken = taken_with([1, 0])
    assert settle_labels(taken, ("0", "1"))[0].labels.dtype == np.int64
    assert settle_labels(taken, (), is_regression=True)[0].labels.dtype == np.float32
