"""Row 16: an unusable row is set aside with its reason and counted; too many stop the step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.tables import TextData
from attar.errors import DataError

GOOD = [
    json.dumps({"text": f"sentence {i}", "label": "ab"[i % 2], "id": i}).encode()
    for i in range(200)
]


def load(folder: Path, lines: list[bytes], **settings: Any) -> TextData:
    (folder / "train.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "validation.jsonl").write_bytes(b"\n".join(GOOD[:20]) + b"\n")
    return load_data(FilesData(path=".", **settings), folder)


FAULTS = {
    "NaN label": b'{"text": "a", "label": NaN, "id": -1}',
    "unlabelled": b'{"text": "a", "label": null, "id": -2}',
    "no label": b'{"text": "a", "id": -3}',
    "longer than 512 KiB": b'{"text": "' + b"x" * 10**6 + b'", "label": "a", "id": -4}',
    "NUL byte in text": b'{"text": "a\\u0000b", "label": "a", "id": -5}',
    "not JSON": b'{"text": "a\0b", "label": "a", "id": -6}',
    "not UTF-8": b'{"text": "caf\xe9", "label": "a", "id": -7}',
    "text is no text": b'{"text": 12, "label": "a", "id": -8}',
    "label is neither class nor name": b'{"text": "a", "label": ["a"], "id": -9}',
    "unknown label": b'{"text": "a", "label": 3, "id": -10}',
    "duplicate id": b'{"text": "a", "label": "a", "id": 0}',
    "empty text": b'{"text": "  ", "label": "a", "id": -12}',
    "no text": b'{"body": "a", "label": "a", "id": -13}',
    "not a JSON object": b'["a", 0]',
}


@pytest.mark.parametrize("reason", FAULTS)
def test_one_faulty_row_is_set_aside_and_counted(tmp_path: Path, reason: str) -> None:
    data = load(tmp_path, [*GOOD[:100], FAULTS[reason], *GOOD[100:]])
    assert len(data.split("train")) == 200
    assert data.set_aside_counts == {reason: 1}
    assert (data.set_aside[0].split, data.set_aside[0].row) == ("train", 100)


def test_too_many_stop_the_step_with_counts_and_examples(tmp_path: Path) -> None:
    lines = [*GOOD, *FAULTS.values()]
    with pytest.raises(DataError) as caught:
        load(tmp_path, lines)
    message = str(caught.value)
    assert "14 of 214 rows cannot be used (6.5%; max_set_aside allows 1.0%)" in message
    for i, reason in enumerate(FAULTS):
        assert f"1 × {reason}: row {200 + i}" in message
    data = load(tmp_path, lines, max_set_aside=0.1)
    assert len(data.split("train")) + len(data.set_aside) == len(lines)


def test_a_label_that_train_never_saw_is_set_aside_in_validation(tmp_path: Path) -> None:
    stranger = b'{"text": "a", "label": "c"}'
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(GOOD))
    (tmp_path / "validation.jsonl").write_bytes(b"\n".join([*GOOD, stranger]))
    data = load_data(FilesData(path="."), tmp_path)
    assert data.label_names == ("a", "b")
    assert data.set_aside_counts == {"unknown label": 1}
    assert data.set_aside[0].split == "validation"


@pytest.mark.parametrize("name", ["train.jsonl", "train.csv", "train.txt", "train.jsonl.gz"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="split 'train' of data 'data' is empty: 0 rows"):
        load_data(FilesData(path="."), tmp_path)


def test_a_file_without_a_label_column_is_an_error_that_names_its_columns(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,kind\n" + "a,b\n" * 20)
    with pytest.raises(DataError, match="no column 'label'; its columns are 'text', 'kind'"):
        load_data(FilesData(path="."), tmp_path)


def test_faults_of_a_csv_are_set_aside_too(tmp_path: Path) -> None:
    good = [f"sentence {i},{i % 2}".encode() for i in range(200)]
    bad = {
        "NUL byte in text": b"a\0b,1",
        "not UTF-8": b"caf\xe9,1",
        "NaN label": b"a,nan",
        "empty label": b"a,",
        "wrong number of columns": b"a,b,1",
        "longer than 512 KiB": b"x" * 10**6 + b",1",
    }
    (tmp_path / "train.csv").write_bytes(b"\n".join([b"text,label", *good, *bad.values()]))
    data = load_data(FilesData(path=".", max_set_aside=0.05), tmp_path)
    assert data.set_aside_counts == dict.fromkeys(bad, 1)
    assert sum(map(len, data.splits.values())) == 200


def test_a_file_in_another_encoding_is_an_error_not_a_crash(tmp_path: Path) -> None:
    text = "".join(line.decode() + "\n" for line in GOOD)
    (tmp_path / "train.jsonl").write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match="rows cannot be used"):
        load_data(FilesData(path=".", text="text"), tmp_path)
