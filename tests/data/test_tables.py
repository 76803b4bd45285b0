"""A table says what it has, and refuses what it has not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attar.data.tables import SetAside, Split, TextData
from attar.errors import DataError


def table(labels: np.ndarray) -> TextData:
    split = Split(tuple((f"text {i}",) for i in range(len(labels))), labels)
    faults = (SetAside("train", 3, "NaN label"), SetAside("train", 4, "empty text"))
    return TextData(
        "toy",
        "classification",
        ("no", "yes"),
        ("accuracy",),
        {"train": split},
        (*faults, faults[1]),
    )


def test_missing_split_error_names_what_exists_and_the_near_name() -> None:
    with pytest.raises(
        DataError, match=r"no split 'trian' \(did you mean 'train'\?\).*train \(2 rows"
    ):
        table(np.array([0, 1])).split("trian")


def test_labels_are_demanded_only_when_asked_for() -> None:
    hidden = table(np.array([0, -1]))
    assert len(hidden.split("train")) == 2
    with pytest.raises(DataError, match="rows without a label"):
        hidden.split("train", labelled=True)
    assert not Split((("a",),), np.array([np.nan], dtype=np.float32)).is_labelled


def test_set_aside_counts_are_by_split_and_reason_most_frequent_first() -> None:
    data = table(np.array([0, 1]))
    data = replace(data, set_aside=(*data.set_aside, SetAside("test", 0, "NaN label")))
    assert list(data.set_aside_counts.items()) == [
        ("train: empty text", 2),
        ("train: NaN label", 1),
        ("test: NaN label", 1),
    ]
    assert list(data.set_aside_of("train").items()) == [("empty text", 2), ("NaN label", 1)]


def test_rows_keep_texts_and_labels_together() -> None:
    chosen = table(np.array([0, 1, 1, 0])).split("train").rows([2, 3])
    assert chosen.texts == (("text 2",), ("text 3",))
    assert chosen.labels.tolist() == [1, 0]
