"""Lines come out as they went in, or not at all."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from attar.data.reading import byte_lines
from attar.data.reading.byte_lines import MAX_ROW_BYTES, MIB, Unended, read_lines, too_long
from attar.errors import DataError

PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
reuses_folder = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("ending", PACK)
@reuses_folder
@given(lines=st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line)))
def test_lines_are_those_of_the_plain_bytes(
    tmp_path: Path, ending: str, lines: list[bytes]
) -> None:
    content = b"\n".join(lines)
    assume(b"\0" not in content)
    assume(not content.startswith((b"\xff\xfe", b"\xfe\xff")))  # UTF-16
    file = tmp_path / f"lines.txt{ending}"
    file.write_bytes(PACK[ending](content))
    end = b"\n" if b"\n" in content else b"\r"
    expected = content.removeprefix(b"\xef\xbb\xbf").split(end)
    if expected[-1] == b"":
        expected.pop()
    assert list(read_lines(file)) == expected


@pytest.mark.parametrize("ending", PACK)
def test_pieces_of_any_size_give_the_same_lines(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [bytes([65 + i % 26]) * (i * 7 % 50) for i in range(200)]
    file = tmp_path / f"lines.txt{ending}"
    file.write_bytes(PACK[ending](b"\n".join(lines) + b"\n"))
    for size in (1, 3, 64):
        monkeypatch.setattr(byte_lines, "CHUNK_BYTES", size)
        assert list(read_lines(file)) == lines


def test_a_byte_order_mark_is_dropped_at_the_start_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = "\ufeff".encode()
    (tmp_path / "lines.txt").write_bytes(mark + b"one" + mark + b"\ntwo")
    monkeypatch.setattr(byte_lines, "CHUNK_BYTES", 3)
    assert list(read_lines(tmp_path / "lines.txt")) == [b"one" + mark, b"two"]


def test_only_a_last_line_without_an_end_is_unended(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_bytes(b"one\ntwo")
    assert [isinstance(line, Unended) for line in read_lines(file)] == [False, True]
    file.write_bytes(b"one\ntwo\n")
    assert not any(isinstance(line, Unended) for line in read_lines(file))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be"])
def test_marked_encodings_are_read_in_pieces_of_any_size(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    lines = [f"línea 𝄞 {i}" for i in range(40)]
    (tmp_path / "lines.txt").write_bytes((mark + "\n".join(lines)).encode(encoding))
    for size in (1, 3, 64):
        monkeypatch.setattr(byte_lines, "CHUNK_BYTES", size)
        assert [bytes(line).decode() for line in read_lines(tmp_path / "lines.txt")] == lines  # type: ignore[arg-type]


def test_carriage_returns_are_ends_only_where_no_line_feed_is(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"one\rtwo\r")
    assert list(read_lines(tmp_path / "lines.txt")) == [b"one", b"two"]
    (tmp_path / "lines.txt").write_bytes(b"one\rtwo\nthree\r\n")
    assert list(read_lines(tmp_path / "lines.txt")) == [b"one\rtwo", b"three\r"]


def test_only_the_line_over_the_cap_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    cap = b"c" * MAX_ROW_BYTES
    file.write_bytes(
        b"\n".join([b"first", b"x" * (MAX_ROW_BYTES + 1), cap, b"y" * 3 * MIB, b"last"])
    )
    over = too_long(MAX_ROW_BYTES)
    assert list(read_lines(file)) == [b"first", over, cap, over, b"last"]
    assert list(read_lines(file, 3 * MIB))[3] == b"y" * 3 * MIB
    file.write_bytes(b"first\n" + b"x" * 2 * MIB)
    assert list(read_lines(file)) == [b"first", over]


READ_ALL = """
import resource, sys
from pathlib import Path
from attar.data.reading.byte_lines import read_lines
from attar.errors import DataError
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
try:
    for _ in read_lines(Path(sys.argv[1])):
        pass
except DataError as error:
    print(peak() - before, error)
"""


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compression_bomb_is_refused_in_bounded_memory(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"bomb.txt{ending}"
    file.write_bytes(PACK[ending](bytes(160 * MIB)))
    assert file.stat().st_size < MIB
    child = [sys.executable, "-c", READ_ALL, str(file)]
    words = subprocess.run(child, capture_output=True, text=True, check=True).stdout
    assert "compression bomb" in words
    assert "unpack it or split it" in words
    assert float(words.split()[0]) < 24  # MiB; the 64 that are free of a look would not fit


def test_small_repetitive_files_are_no_bombs(tmp_path: Path) -> None:
    file = tmp_path / "same.txt.zst"
    file.write_bytes(zstandard.compress(b"the same line\n" * 100_000))
    assert sum(1 for _ in read_lines(file)) == 100_000


def test_several_frames_are_one_file(tmp_path: Path) -> None:
    for ending in (".gz", ".zst"):
        file = tmp_path / f"frames.txt{ending}"
        file.write_bytes(PACK[ending](b"one\ntw") + PACK[ending](b"o\n"))
        assert list(read_lines(file)) == [b"one", b"two"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.txt does not exist"):
        list(read_lines(tmp_path / "nothing.txt"))
