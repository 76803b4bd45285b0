"""A folder written once: sealed, verified, replaced whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.artifacts import (
    Result,
    disk_errors_explained,
    files_below,
    key_of,
    put_in_place,
    read_json,
    read_result,
    remove_outdated,
    result_hash,
    seal,
    sha256_of,
    size_mib,
    verify,
    write_json,
)
from attar.errors import ArtifactError, ResourceError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def made(folder: Path, text: str = "weights", **settings: object) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights").write_text(text)
    (folder / "history.jsonl").write_text("{}")
    return folder


RESULT = Result("teacher", "train", "k" * 16, inputs={"a": "b"}, metrics={"accuracy": 0.5})


def publish(staging: Path, final: Path, result: Result) -> Result:
    sealed = seal(staging, result)
    put_in_place(staging, final)
    return sealed


def test_a_published_artifact_is_verified_and_read_back(tmp_path: Path) -> None:
    sealed = publish(made(tmp_path / "staging"), tmp_path / "teacher", RESULT)
    assert not (tmp_path / "staging").exists()
    assert verify(tmp_path / "teacher") == sealed == read_result(tmp_path / "teacher")
    assert set(sealed.files) == {"model/weights", "history.jsonl"}
    assert sealed.files["model/weights"] == sha256_of(tmp_path / "teacher" / "model" / "weights")
    assert sealed.metrics == RESULT.metrics


def test_an_older_artifact_is_replaced_whole(tmp_path: Path) -> None:
    publish(made(tmp_path / "a", "old"), tmp_path / "teacher", RESULT)
    (tmp_path / "teacher" / "model" / "extra").write_text("of the old one")
    publish(made(tmp_path / "b", "new"), tmp_path / "teacher", RESULT)
    assert (tmp_path / "teacher" / "model" / "weights").read_text() == "new"
    assert verify(tmp_path / "teacher")
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    publish(made(tmp_path / "a", "old"), tmp_path / "teacher", RESULT)
    seal(made(tmp_path / "b", "new"), RESULT)
    (tmp_path / "teacher").rename(tmp_path / ".outdated-teacher-1")
    put_in_place(tmp_path / "b", tmp_path / "teacher")
    remove_outdated(tmp_path)
    assert verify(tmp_path / "teacher")
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "model" / "weights").write_text("weighty"), "model/weights was changed"),
        (lambda f: (f / "model" / "weights").unlink(), "model/weights is missing"),
        (lambda f: (f / "extra").write_text(""), "extra is not in the manifest"),
        (lambda f: (f / "result.json").unlink(), "result.json does not exist"),
        (lambda f: (f / "result.json").write_text("{"), "result.json is damaged"),
        (lambda f: (f / "result.json").write_text("[" * 100_000), "result.json is damaged"),
        (lambda f: (f / "result.json").write_bytes(b"\xff"), "result.json is damaged"),
        (lambda f: (f / "result.json").write_text("[]"), "does not have the form of a result"),
        (lambda f: (f / "result.json").write_text('{"step": "a"}'), "does not have the form"),
    ],
)
def test_every_damage_is_named_with_its_file(tmp_path: Path, damage: object, said: str) -> None:
    publish(made(tmp_path / "staging"), tmp_path / "teacher", RESULT)
    damage(tmp_path / "teacher")  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=said):
        verify(tmp_path / "teacher")


def test_a_manifest_that_points_outside_its_folder_is_damage(tmp_path: Path) -> None:
    publish(made(tmp_path / "staging"), tmp_path / "teacher", RESULT)
    (tmp_path / "secret").write_text("outside")
    file = tmp_path / "teacher" / "result.json"
    content = json.loads(file.read_text())
    content["files"]["../secret"] = sha256_of(tmp_path / "secret")
    file.write_text(json.dumps(content | {"sha256": result_hash(content)}))
    with pytest.raises(ArtifactError, match=r"\.\./secret is missing"):
        verify(tmp_path / "teacher")


def test_an_open_reader_keeps_the_bytes_it_began_with(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"old": "x" * 10_000})
    with file.open() as reader:
        begun = reader.read(5)
        write_json(file, {"new": True})
        assert json.loads(begun + reader.read()) == {"old": "x" * 10_000}
    assert read_json(file) == {"new": True}


def test_a_rename_that_fails_leaves_the_old_artifact(tmp_path: Path) -> None:
    publish(made(tmp_path / "a", "old"), tmp_path / "teacher", RESULT)
    for kept in (None, tmp_path / ".replaced" / "teacher-k"):
        with pytest.raises(FileNotFoundError):
            put_in_place(tmp_path / "never sealed", tmp_path / "teacher", kept)
        assert verify(tmp_path / "teacher")
        assert (tmp_path / "teacher" / "model" / "weights").read_text() == "old"


def test_what_is_replaced_is_kept_where_it_is_asked_to_be(tmp_path: Path) -> None:
    publish(made(tmp_path / "a", "old"), tmp_path / "teacher", RESULT)
    kept = tmp_path / ".replaced" / "teacher-k"
    for text, before in (("new", "old"), ("newer", "new")):
        seal(made(tmp_path / "b", text), RESULT)
        put_in_place(tmp_path / "b", tmp_path / "teacher", kept)
        assert (kept / "model" / "weights").read_text() == before
        assert verify(kept) and verify(tmp_path / "teacher")


def test_every_file_is_on_disk_before_the_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "staging")
    synced: set[int] = set()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        if not (folder / "result.json").exists():
            synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", noted)
    seal(folder, RESULT)
    assert {path.stat().st_ino for path in folder.rglob("*") if path.is_file()} == synced


@pytest.mark.parametrize("at", [0, 2**20 - 1, 2**20, 3 * 2**20])
def test_every_byte_of_a_large_file_is_hashed(tmp_path: Path, at: int) -> None:
    content = bytearray(3 * 2**20 + 1)
    (tmp_path / "zeros").write_bytes(content)
    content[at] = 1
    (tmp_path / "one").write_bytes(content)
    assert sha256_of(tmp_path / "one") == hashlib.sha256(content).hexdigest()
    assert sha256_of(tmp_path / "one") != sha256_of(tmp_path / "zeros")


def test_a_disk_error_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"old": True})

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match=r"disk full while writing below .* MiB are needed"):
        write_json(file, {"new": True})
    assert read_json(file) == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "more than you may"),
        OSError(errno.ENOSPC, "no room"),
        RuntimeError("Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_libraries_say_disk_full_in_their_own_ways(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(ResourceError, match="disk full"), disk_errors_explained(tmp_path / "a/b"):
        raise error


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors_explained(tmp_path):
        raise PermissionError("not yours")


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True)})
    assert read_json(tmp_path / "a.json") == {"a": 0.5, "b": 3, "c": True}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), np.float32("nan"), {1, 2}])
def test_what_json_cannot_say_is_refused_with_its_place(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match=r"a\.json: models\.1\.accuracy is not JSON data"):
        write_json(tmp_path / "a.json", {"models": [{}, {"accuracy": value}]})
    assert not (tmp_path / "a.json").exists()


@settings(max_examples=30, deadline=None)  # the disk may be slow
@given(PLAIN)
def test_plain_data_survives_json(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    file = tmp_path_factory.mktemp("json") / "a.json"
    write_json(file, content)
    assert read_json(file) == content


@given(st.dictionaries(st.text(), PLAIN, min_size=2))
def test_a_key_is_independent_of_the_order_of_names(content: dict[str, object]) -> None:
    assert key_of(content) == key_of(dict(reversed(content.items())))


def test_different_content_has_different_keys() -> None:
    contents = [{}, [], {"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": [1]}, {"a": None}, {"b": 1}]
    assert len({key_of(content) for content in contents}) == len(contents)
    assert {len(key_of(content)) for content in contents} == {16}


def test_files_and_sizes_leave_the_result_out_only_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("result.json", "inner/result.json", "b", "a"):
        (tmp_path / name).write_bytes(b"x" * 2**20)
    names = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert names == ["a", "b", "inner/result.json"]
    assert size_mib(tmp_path) == 3.0
