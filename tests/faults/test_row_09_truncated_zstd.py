"""Row 9: a .jsonl.zst that broke off is refused; no row of it is counted twice or dropped.

The zstandard library ends such a stream without a word (row 8 tests every length of one frame). Of
a file of several frames only a cut between two of them at the end of a line is a whole file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard

from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.reading.records import read_records
from attar.errors import DataError

ROWS = [{"text": f"sentence {i}", "label": i % 2} for i in range(200)]
LINES = [json.dumps(row).encode() + b"\n" for row in ROWS]


def write(file: Path, *frames: bytes, without: int = 0) -> int:
    """The frames packed one after the other, the last bytes left out; the size of the first."""
    packed = [zstandard.compress(frame) for frame in frames]
    whole = b"".join(packed)
    file.write_bytes(whole[: len(whole) - without])
    return len(packed[0])


def test_all_frames_of_a_file_are_read_once(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl.zst", b"".join(LINES[:80]), b"".join(LINES[80:]))
    assert list(read_records(tmp_path / "train.jsonl.zst")) == ROWS


@pytest.mark.parametrize("without", [1, 5, 40])
def test_a_cut_in_the_second_frame_is_refused_with_its_place(tmp_path: Path, without: int) -> None:
    file = tmp_path / "train.jsonl.zst"
    write(file, b"".join(LINES[:80]), b"".join(LINES[80:]), without=without)
    with pytest.raises(DataError, match=r"truncated or damaged.*after row \d+ \(byte \d+ unpacked"):
        load_data(FilesData(path="."), tmp_path)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst"])
def test_a_cut_inside_the_last_line_is_refused(tmp_path: Path, ending: str) -> None:
    """As it happens between frames, or to a plain file whose download broke off."""
    content = b"".join(LINES)[:-9]
    file = tmp_path / f"train.{ending}"
    file.write_bytes(zstandard.compress(content) if ending.endswith("zst") else content)
    with pytest.raises(DataError, match=r"line 200, the last one, has no end and is not JSON"):
        load_data(FilesData(path="."), tmp_path)


def test_a_whole_last_line_needs_no_end(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b"".join(LINES).removesuffix(b"\n"))
    assert list(read_records(tmp_path / "train.jsonl")) == ROWS


def test_a_cut_between_frames_at_the_end_of_a_line_is_a_shorter_file(tmp_path: Path) -> None:
    """What cannot be known, and the guide says so: if this fails one day, it has become known."""
    file = tmp_path / "train.jsonl.zst"
    first = write(file, b"".join(LINES[:80]), b"".join(LINES[80:]))
    file.write_bytes(file.read_bytes()[:first])
    assert list(read_records(file)) == ROWS[:80]
