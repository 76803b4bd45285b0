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
    "not UTF-8 (byte 0xe9, 'é' in Windows-1252)": b'{"text": "caf\xe9", "label": "a", "id": -7}',
    "half a character (a lone surrogate)": b'{"text": "a", "label": "\\ud800", "id": -14}',
    "text is not a text but a truth value": b'{"text": true, "label": "a", "id": -8}',
    "label is neither a name nor a number": b'{"text": "a", "label": ["a"], "id": -9}',
    "key 'label' appears twice": b'{"text": "a", "label": "a", "label": "b", "id": -10}',
    "duplicate id": b'{"text": "a", "label": "a", "id": 0}',
    "empty text": b'{"text": "  ", "label": "a", "id": -12}',
    "no text": b'{"body": "a", "label": "a", "id": -13}',
    "not a JSON object": b'["a", 0]',
}


@pytest.mark.parametrize("reason", FAULTS)
def test_one_faulty_row_is_set_aside_and_counted(tmp_path: Path, reason: str) -> None:
    data = load(tmp_path, [*GOOD[:100], FAULTS[reason], *GOOD[100:]])
    assert len(data.split("train")) == 200
    assert data.set_aside_of("train") == {reason: 1}
    assert (data.set_aside[0].split, data.set_aside[0].row) == ("train", 100)


def test_too_many_stop_the_step_with_counts_and_examples(tmp_path: Path) -> None:
    lines = [*GOOD, *FAULTS.values()]
    with pytest.raises(DataError) as caught:
        load(tmp_path, lines)
    message = str(caught.value)
    assert "15 of 215 rows cannot be used (7.0%; max_set_aside allows 1.0%)" in message
    for i, reason in enumerate(FAULTS):
        assert f"1 × {reason}: row {200 + i}" in message
    assert "save the file as UTF-8" in message
    data = load(tmp_path, lines, max_set_aside=0.1)
    assert len(data.split("train")) + len(data.set_aside) == len(lines)


def test_a_label_that_train_never_saw_is_set_aside_in_validation(tmp_path: Path) -> None:
    stranger = b'{"text": "a", "label": "c"}'
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(GOOD))
    (tmp_path / "validation.jsonl").write_bytes(b"\n".join([*GOOD, stranger]))
    data = load_data(FilesData(path="."), tmp_path)
    assert data.label_names == ("a", "b")
    assert data.set_aside_counts == {"validation: unknown label 'c'": 1}
    more = [*GOOD, *[stranger] * 20]
    (tmp_path / "validation.jsonl").write_bytes(b"\n".join(more))
    with pytest.raises(DataError, match=r"20 × unknown label 'c'(?s:.*)classes are 'a', 'b'"):
        load_data(FilesData(path="."), tmp_path)


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
        "not UTF-8 (byte 0xe9, 'é' in Windows-1252)": b"caf\xe9,1",
        "missing label 'nan'": b"a,nan",
        "empty label": b"a,",
        "wrong number of columns": b"a,b,1",
        "longer than 512 KiB": b"x" * 10**6 + b",1",
    }
    (tmp_path / "train.csv").write_bytes(b"\n".join([b"text,label", *good, *bad.values()]))
    data = load_data(FilesData(path=".", max_set_aside=0.05), tmp_path)
    assert data.set_aside_of("train") == dict.fromkeys(bad, 1)
    assert sum(map(len, data.splits.values())) == 200


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    lines = ["text,label", *(f"„Satz“ {i},{'ab'[i % 2]}" for i in range(40)), ""]
    (tmp_path / "train.csv").write_bytes(end.join(lines).encode(encoding))
    data = load_data(FilesData(path="."), tmp_path)
    assert len(data.split("train")) + len(data.split("validation")) == 40
    assert data.label_names == ("a", "b")
    assert {text.split()[0] for (text,) in data.split("train").texts} == {"„Satz“"}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "train.csv").write_bytes("text,label\na,b\n".encode(encoding))
    with pytest.raises(DataError, match=r"train\.csv looks like UTF-16.*save it as UTF-8"):
        load_data(FilesData(path="."), tmp_path)


def test_utf16_that_was_cut_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("text,label\na,b\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match="truncated or damaged"):
        load_data(FilesData(path="."), tmp_path)


def test_windows_1252_is_named_with_its_byte_and_row(tmp_path: Path) -> None:
    rows = "".join(f"café {i},{'ab'[i % 2]}\n" for i in range(9))
    (tmp_path / "train.csv").write_bytes(("text,label\n" + rows).encode("cp1252"))
    with pytest.raises(DataError, match=r"9 × not UTF-8 \(byte 0xe9, 'é' in .*row 0, 1, 2, …"):
        load_data(FilesData(path="."), tmp_path)
    (tmp_path / "train.csv").write_bytes("café,label\na,b\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"column names are not UTF-8 \(byte 0xe9"):
        load_data(FilesData(path="."), tmp_path)


def test_texts_that_cannot_be_read_are_blamed_and_not_the_labels(tmp_path: Path) -> None:
    lines = [json.dumps({"text": ["a"] if i % 2 else "a", "label": i % 2}) for i in range(40)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="20 × text is not a text but a list: row 1, 3, 5"):
        load_data(FilesData(path="."), tmp_path)
