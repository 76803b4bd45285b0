"""A file is read again if it may have changed, and only then."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from attar.artifacts import key_of, sha256_of, verify
from attar.data.config import FilesData
from attar.errors import ArtifactError
from attar.recipe.keys import room_fingerprints
from attar.recipe.outcome.status import status_of
from attar.recipe.running import known_hashes
from attar.recipe.running.known_hashes import HASHES_FILE, SMALLEST, KnownHashes
from engine_steps import run_small

SIZE = 2 * SMALLEST


def settled(file: Path, content: bytes = b"a" * SIZE) -> Path:
    """A file whose last change is longer ago than a tick."""
    file.write_bytes(content)
    time.sleep(known_hashes.TICK_S + 0.01)
    return file


def bytes_read(folder: Path, *files: Path) -> int:
    """By a new process that hashes these files, right each time."""
    hashes = KnownHashes(folder)
    assert [hashes.sha256(file) for file in files] == [sha256_of(file) for file in files]
    hashes.save()
    return hashes.bytes_read


def test_a_file_is_read_once(tmp_path: Path) -> None:
    file = settled(tmp_path / "weights")
    assert [bytes_read(tmp_path, file) for _ in range(3)] == [SIZE, 0, 0]
    (tmp_path / "moved").mkdir()
    moved = file.rename(tmp_path / "moved" / "weights")
    assert bytes_read(tmp_path, moved) in (0, SIZE)  # some file systems count a rename as a change
    file = settled(tmp_path / "small", b"a" * 100)
    assert [bytes_read(tmp_path, file) for _ in range(2)] == [100, 100]


def test_a_change_that_hides_its_time_is_seen(tmp_path: Path) -> None:
    file = settled(tmp_path / "weights")
    assert bytes_read(tmp_path, file) == SIZE
    before = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"b")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert bytes_read(tmp_path, file) == SIZE


def test_a_file_that_was_just_written_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_hashes, "TICK_S", 60.0)
    file = tmp_path / "weights"
    file.write_bytes(b"a" * SIZE)
    assert [bytes_read(tmp_path, file) for _ in range(2)] == [SIZE, SIZE]
    assert not (tmp_path / HASHES_FILE).exists()


def test_whole_seconds_are_a_coarse_clock(tmp_path: Path) -> None:
    def file_of(ctime_ns: int) -> os.stat_result:
        values = list(settled(tmp_path / "weights").stat())
        times = {"st_mtime_ns": ctime_ns, "st_ctime_ns": ctime_ns}
        return os.stat_result(values, times)

    now = 10**18
    assert known_hashes._seconds_to_wait(file_of(now - 10**9), now) > 0
    assert known_hashes._seconds_to_wait(file_of(now - 10**9 + 1), now) < 0
    assert known_hashes._seconds_to_wait(file_of(now + 10**12), now) > 0


def test_a_large_file_is_waited_for_rather_than_read_twice(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    size = int(3 * known_hashes.TICK_S * known_hashes.BYTES_PER_S)
    with file.open("wb") as stream:
        stream.truncate(size)
    assert [bytes_read(tmp_path, file) for _ in range(2)] == [size, 0]


def test_a_copied_folder_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    settled(tmp_path / "run" / "weights")
    assert bytes_read(tmp_path / "run", tmp_path / "run" / "weights") == SIZE
    copied = Path(shutil.copytree(tmp_path / "run", tmp_path / "copy"))  # with its times
    assert bytes_read(copied, copied / "weights") == SIZE


def test_entries_that_do_not_fit_their_key_are_forgotten(tmp_path: Path) -> None:
    file = settled(tmp_path / "weights")
    assert bytes_read(tmp_path, file) == SIZE
    sidecar = tmp_path / HASHES_FILE
    damaged = sidecar.read_text().replace(sha256_of(file), "0" * 64)
    for content in (damaged, "", "[]", '{"files": {"1:2": [1]}, "key": "x"}', damaged[:50]):
        sidecar.write_text(content)
        assert bytes_read(tmp_path, file) == SIZE
    sidecar.unlink()
    os.mkfifo(sidecar)
    assert bytes_read(tmp_path, file) == SIZE


def test_a_run_reads_its_finished_steps_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_hashes, "SMALLEST", 1)
    monkeypatch.setattr(known_hashes, "BYTES_PER_S", 1.0)  # every file is worth waiting for
    folder = tmp_path / "small"
    run_small(folder)
    known = json.loads((folder / HASHES_FILE).read_text())["files"]
    made = [path for path in folder.glob("*/**/*") if path.is_file()]
    made = [path for path in made if path.name != "result.json" and ".scratch" not in path.parts]
    assert len(made) == len(known) >= 5
    assert {entry[3] for entry in known.values()} == set(map(sha256_of, made))

    def never(hashes: KnownHashes, file: Path) -> None:
        raise AssertionError(f"{file} was read")

    monkeypatch.setattr(KnownHashes, "read", never)
    assert all(step.reused for step in run_small(folder).steps)


def test_status_reads_every_byte_and_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_hashes, "SMALLEST", 1)
    folder = tmp_path / "small"
    run_small(folder)
    weights = folder / "student" / "model" / "weights"
    as_made = weights.read_bytes()
    weights.write_bytes(bytes([as_made[0] ^ 1]) + as_made[1:])
    found = weights.stat()
    # as if the disk had lost a bit without a write: the sidecar says that nothing changed
    name = f"{found.st_dev}:{found.st_ino}"
    times = [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    files = {name: [*times, hash_in_manifest(folder, "student", "model/weights")]}
    (folder / HASHES_FILE).write_text(json.dumps({"files": files, "key": key_of(files)}))
    assert all(step.reused for step in run_small(folder).steps)
    assert [step.state for step in status_of(folder).steps] == ["done"] * 5
    checked = status_of(folder, every_byte=True)
    states = {step.name: step.state for step in checked.steps}
    assert states == dict.fromkeys(states, "done") | {"student": "damaged"}
    assert "student: artifact" in checked.text() and "model/weights was changed" in checked.text()
    with pytest.raises(ArtifactError, match="1 of 5 steps is damaged: student"):
        checked.require_whole()
    weights.write_bytes(as_made)
    status_of(folder, every_byte=True).require_whole()
    assert verify(folder / "student")


def hash_in_manifest(folder: Path, step: str, name: str) -> str:
    return json.loads((folder / step / "result.json").read_text())["files"][name]


def test_data_and_models_are_read_once_too(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "texts").mkdir()
    rows = settled(tmp_path / "texts" / "train.jsonl", b'{"text": "a", "label": 0}\n' * 10_000)
    weights = max(tiny_bert.rglob("*"), key=lambda path: path.stat().st_size)
    first, second = (KnownHashes(tmp_path), KnownHashes(tmp_path))
    plain = room_fingerprints()
    for hashes, least in ((first, rows.stat().st_size + weights.stat().st_size), (second, 0)):
        prints = room_fingerprints(hashes.sha256)
        data = FilesData(path="texts")
        assert prints.data(data, tmp_path) == plain.data(data, tmp_path)
        assert prints.model(str(tiny_bert), tmp_path) == plain.model(str(tiny_bert), tmp_path)
        assert least <= hashes.bytes_read < least + weights.stat().st_size
        hashes.save()
        second._known = known_hashes._read(tmp_path / HASHES_FILE)
