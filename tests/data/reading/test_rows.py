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
from attar.data.reading.labels import Classes
from attar.data.reading.records import Record
from attar.data.reading.rows import Columns, Taken, check_set_aside, settle_labels, take_texts
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
    classes = None if is_regression else Classes(("a", "b"), may_be_indices=indices)
    split, faults = settle_labels(taken, classes, may_lack)
    assert taken.num_read == len(records)
    assert len(split) + len(faults) == len(records)
    assert len({fault.row for fault in faults}) == len(faults)
    assert len(split.labels) == len(split.texts)
    if not is_regression:
        assert set(split.labels.tolist()) <= {UNLABELLED, 0, 1}
    if not may_lack:
        assert split.is_labelled
    assert [fault.row for fault in faults] == sorted(fault.row for fault in faults)


def labels_of(
    values: list[Any], classes: Classes | None, *, may_lack_labels: bool = False
) -> list[Any]:
    """Each value's class or number, or the reason why its row was set aside."""
    taken = take_texts(
        [{"text": "t", "label": value} for value in values], Columns(("text",), "label"), "s"
    )
    split, faults = settle_labels(taken, classes, may_lack_labels)
    reasons = {fault.row: fault.reason for fault in faults}
    found = iter(split.labels.tolist())
    return [reasons[row] if row in reasons else next(found) for row in range(len(values))]


def test_hidden_labels_are_kept_where_they_may_lack() -> None:
    classes = Classes(("a", "b"), may_be_indices=True)
    hidden: list[Any] = [None, -1, "", math.nan, "NA"]
    assert labels_of([*hidden, 1], classes, may_lack_labels=True) == [-1] * len(hidden) + [1]
    assert labels_of(["c"], classes, may_lack_labels=True) == ["unknown label 'c'"]
    *none, score = labels_of([None, "", "NA", 2.5], None, may_lack_labels=True)
    assert np.isnan(none).all()
    assert score == 2.5


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("many", "label is not a number"),
        (True, "label is not a number"),
        ([1], "label is not a number"),
        ("1_000", "label is not a number"),
        (10**400, "label is not a number"),
        ("", "empty label"),
        (None, "unlabelled"),
        (math.inf, "label is infinite"),
        (math.nan, "NaN label"),
        ("NA", "missing label 'NA'"),
        (3.5e38, "label too large"),
        ("-1e39", "label too large"),
    ],
)
def test_a_number_is_finite_in_single_precision_or_set_aside(value: Any, reason: str) -> None:
    assert labels_of([value], None) == [reason]


def test_the_largest_number_of_single_precision_is_a_label() -> None:
    largest = float(np.finfo(np.float32).max)
    assert labels_of([largest, str(-largest), " 1e3 "], None) == [largest, -largest, 1000.0]


def test_many_different_wrong_labels_share_a_reason() -> None:
    found = labels_of([f"x{i}" for i in range(100)], Classes(("a", "b")))
    assert found[0] == "unknown label 'x0'"
    assert len(set(found)) == rows.MAX_REASONS + 1
    assert found[-1] == "another label that cannot be used"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no text"),
        (math.nan, "no text"),
        (True, "text is not a text but a truth value"),
        (["a"], "text is not a text but a list"),
        (" \t", "empty text"),
        ("a\0b", "NUL byte in text"),
        ("\ud800", "half a character (a lone surrogate)"),
        ("caf\udce9", "not UTF-8 (byte 0xe9, 'é' in Windows-1252)"),
        ("é" * (MAX_ROW_BYTES // 2 + 1), "longer than 512 KiB"),
    ],
)
def test_a_text_that_cannot_be_read_has_its_reason(text: Any, reason: str) -> None:
    taken = take_texts([{"text": text, "label": 0}], COLUMNS, "train")
    assert [fault.reason for fault in taken.set_aside] == [reason]


def test_a_number_is_the_text_it_is_written_as() -> None:
    records: list[Record | Unreadable] = [{"text": value, "label": 0} for value in (4711, 0.5)]
    assert take_texts(records, COLUMNS, "train").texts == [("4711",), ("0.5",)]


def test_ids_of_different_types_are_different() -> None:
    records: list[Record | Unreadable] = [{"text": "t", "label": 0, "id": id} for id in (1, "1")]
    assert len(take_texts(records, COLUMNS, "train").texts) == 2


def test_the_first_row_of_an_id_stays() -> None:
    records = [{"text": word, "label": 0, "id": 7} for word in ("one", "two")]
    taken = take_texts([*records, {"text": "three", "label": 0}], COLUMNS, "train")
    assert taken.texts == [("one",), ("three",)]
    assert taken.set_aside == [SetAside("train", 1, "duplicate id")]


def taken_with(labels: list[Any]) -> Taken:
    return take_texts([{"text": "t", "label": label} for label in labels], COLUMNS, "train")


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
    assert settle_labels(taken, Classes(("0", "1")))[0].labels.dtype == np.int64
    assert settle_labels(taken, None)[0].labels.dtype == np.float32


def test_more_texts_than_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_CHARACTERS", 10)
    records = [{"text": "abcde"}, {"text": "fghij"}, {"text": "k"}]
    assert len(take_texts(records[:2], Columns(("text",), None), "train").texts) == 2
    with pytest.raises(DataError, match=r"first 3 rows have more than 10 characters.*tokenize"):
        take_texts(records, Columns(("text",), None), "train")
