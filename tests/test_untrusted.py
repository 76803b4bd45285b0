from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from attar.errors import ArtifactError
from attar.untrusted import MAX_DIGITS, MAX_JSON_DEPTH, checked, has_entry, read_bytes, read_json


def directory(file: Path) -> None:
    file.mkdir()


def listening_socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(file))  # a socket's name has at most 108 bytes


def linked_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def dangling(file: Path) -> None:
    file.symlink_to("nothing")


def loop(file: Path) -> None:
    file.symlink_to(file.name)


def link_out(file: Path) -> None:
    outside = file.parent.parent / "outside"
    outside.write_text("{}")
    file.symlink_to(outside)


ODD: dict[Callable[[Path], None], str] = {
    directory: "is a directory, expected a regular file",
    os.mkfifo: "is a FIFO, expected a regular file",
    listening_socket: "cannot be opened|is a socket",
    linked_device: "is a link to /dev/zero, outside its folder",
    dangling: r"a link to .*nothing\) does not exist",
    loop: "cannot be opened",
    link_out: "is a link to .*outside its folder",
}


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_only_a_regular_file_of_its_folder_is_opened(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    file = folder / "file.json"
    make(file)
    assert has_entry(file)
    for read in (read_json, checked, lambda odd: read_bytes(odd, 10)):
        with pytest.raises(ArtifactError, match=ODD[make]) as caught:
            read(file)
        assert str(file) in str(caught.value)


def test_a_device_that_is_no_link_is_refused_unread() -> None:
    with pytest.raises(ArtifactError, match="is a device, expected a regular file"):
        read_bytes(Path("/dev/zero"), 10)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("[1]")
    (tmp_path / "link.json").symlink_to("real.json")
    assert read_json(tmp_path / "link.json") == [1]


def test_a_snapshot_of_the_hub_cache_is_read_and_no_other_folder_of_its_repository(
    tmp_path: Path,
) -> None:
    snapshot, blobs, refs = (tmp_path / name for name in ("snapshots/abc", "blobs", "refs"))
    for folder in (snapshot, blobs, refs):
        folder.mkdir(parents=True)
        (folder / "1").write_text("[1]")
    (snapshot / "good.json").symlink_to("../../blobs/1")
    (snapshot / "bad.json").symlink_to("../../refs/1")
    assert read_json(snapshot / "good.json") == [1]
    with pytest.raises(ArtifactError, match="outside its folder"):
        read_json(snapshot / "bad.json")


def test_a_folder_that_is_itself_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_text("[1]")
    (tmp_path / "alias").symlink_to("real")
    assert read_json(tmp_path / "alias" / "a.json") == [1]


def test_a_file_beyond_its_limit_is_refused_with_both_numbers_and_unread(tmp_path: Path) -> None:
    file = tmp_path / "sparse.json"
    with file.open("wb") as stream:
        stream.truncate(3 * 2**30)
    with pytest.raises(ArtifactError, match=r"has 3,221,225,472 bytes, at most 33,554,432"):
        read_json(file)


def test_a_file_at_its_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(ArtifactError, match="has 5 bytes, at most 4"):
        read_bytes(tmp_path / "a", 4)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (nested(MAX_JSON_DEPTH + 1), "nested deeper than 64 levels"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper than 64 levels"),
        (nested(200_000), "nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", "an integer of 5000 digits, at most 40"),
        ("9" * (MAX_DIGITS + 1), "an integer of 41 digits"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
    ],
)
def test_json_beyond_the_limits_names_the_file(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ArtifactError, match=rf"a\.json is damaged \({words}"):
        read_json(tmp_path / "a.json")


def test_json_at_the_limits_is_read(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text(nested(MAX_JSON_DEPTH))
    (tmp_path / "long.json").write_text("9" * MAX_DIGITS)
    read_json(tmp_path / "deep.json")
    assert read_json(tmp_path / "long.json") == int("9" * MAX_DIGITS)


@pytest.mark.parametrize("raw", [b"\xff\xfe{\x00}\x00", b"\xff", b'"\xed\xa0\x80"'])
def test_json_that_is_not_utf_8_names_the_file(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")
