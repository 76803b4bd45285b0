"""Row 2: an unfinished or damaged checkpoint is passed over by name, and the one before it used."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

import attar.training.saving.checkpoint as checkpoint
from attar.errors import ResourceError, StoppedError
from attar.progress import Progress
from attar.training.saving.checkpoint import CheckpointStore
from attar.training.saving.state import Place
from training_runs import prepare, read_history, read_weights, run_training

STOP_AT = 9
"""Polls before the stop: some steps after the second checkpoint."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to. Read-only by agreement."""
    place = prepare(tmp_path_factory.mktemp("whole"))
    run_training(place)
    return place


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped, with two checkpoints in its scratch folder."""
    place = prepare(tmp_path_factory.mktemp("stopped"))
    polls = iter(range(1000))
    with pytest.raises(StoppedError):
        run_training(place, should_stop=lambda: next(polls) >= STOP_AT, checkpoint_every=2)
    assert len(checkpoints(place)) == 2
    return place


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def checkpoints(place: Path) -> list[Path]:
    return sorted((place / "scratch").glob("checkpoint-*"), reverse=True)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.unlink()  # hard-linked files would change together
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, Path.unlink])
@pytest.mark.parametrize("name", ["weights.safetensors", "moments.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_is_named_and_the_previous_one_used(
    whole: Path, stopped: Path, damage, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, previous = checkpoints(stopped)
    damage(newest / name)
    run_training(stopped)
    said = capsys.readouterr().err
    assert f"skipped {newest.name} (" in said and name in said
    assert f"continuing from {previous.name}" in said
    assert read_history(stopped) == read_history(whole)
    ours, theirs = read_weights(stopped), read_weights(whole)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_an_unfinished_checkpoint_is_named_and_never_read(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoints(stopped)[0]
    shutil.copytree(newest, newest.with_name(".writing-00000011"))
    run_training(stopped)
    said = capsys.readouterr().err
    assert ".writing-00000011 (unfinished)" in said and f"continuing from {newest.name}" in said


def test_without_any_whole_checkpoint_the_run_starts_again_and_says_so(
    whole: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in checkpoints(stopped):
        truncate(folder / "weights.safetensors")
    run_training(stopped)
    assert "continuing from the beginning" in capsys.readouterr().err
    assert read_history(stopped) == read_history(whole)


def test_a_full_disk_leaves_earlier_checkpoints_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, Progress(quiet=True))
    store.save(Place(step=1), {"w": torch.ones(3)}, {}, {})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "sync", full)
    with pytest.raises(ResourceError, match="disk full"):
        store.save(Place(step=2), {"w": torch.zeros(3)}, {}, {})
    found = store.newest()
    assert found is not None and found.place.step == 1 and found.weights["w"].sum() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001"]


def test_a_checkpoint_is_tensors_and_json_only(stopped: Path) -> None:
    names = {path.name for folder in checkpoints(stopped) for path in folder.iterdir()}
    assert {Path(name).suffix for name in names} == {".safetensors", ".json"}
    json.loads((checkpoints(stopped)[0] / "state.json").read_text())
