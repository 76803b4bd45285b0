"""What a checkpoint holds and what it costs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import attar.training.saving.checkpoint as checkpoint
from attar.errors import ResourceError
from attar.progress import Progress
from attar.training.saving.checkpoint import CheckpointStore
from attar.training.saving.state import Place

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([0.1, float(2**-140)])}
MOMENTS = {"exp_avg/w": torch.randn(2, 3), "step/w": torch.tensor(7.0)}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, Progress(quiet=True))


def test_what_is_read_is_what_was_saved_to_the_last_bit(store: CheckpointStore) -> None:
    place = Place(step=7, best_value=1 / 3, history=[{"loss": 0.1 + 0.2}], seconds=1e-9)
    store.save(place, WEIGHTS, MOMENTS, {"threads": 2})
    found = store.newest()
    assert found is not None and found.place == place and found.about == {"threads": 2}
    for read, saved in ((found.weights, WEIGHTS), (found.moments, MOMENTS)):
        assert read.keys() == saved.keys()
        for name, tensor in saved.items():
            assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)


def test_the_best_weights_outlive_the_checkpoint_they_came_with(
    store: CheckpointStore, tmp_path: Path
) -> None:
    for step in range(1, 6):
        weights = {"w": torch.full((2,), float(step))}
        store.save(Place(step=step, best_step=2 if step > 1 else None), weights, {}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-00000004",
        "checkpoint-00000005",
    ]
    assert store.best_weights["w"].tolist() == [2.0, 2.0]
    later = CheckpointStore(tmp_path, Progress(quiet=True))
    assert later.newest() is not None
    assert later.best_weights["w"].tolist() == [2.0, 2.0]


def test_a_best_state_costs_no_bytes_of_its_own(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(Place(step=1, best_step=1), WEIGHTS, {}, {})
    folder = tmp_path / "checkpoint-00000001"
    best, weights = folder / "best.safetensors", folder / "weights.safetensors"
    assert best.stat().st_ino == weights.stat().st_ino


def without_hard_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_without_hard_links_the_best_state_is_a_copy(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", without_hard_links)
    for step in (1, 2, 3):
        weights = {"w": torch.full((2,), float(step))}
        store.save(Place(step=step, best_step=1), weights, {}, {})
    folder = tmp_path / "checkpoint-00000003"
    inodes = {(folder / name).stat().st_ino for name in ("best.safetensors", "weights.safetensors")}
    assert len(inodes) == 2
    later = CheckpointStore(tmp_path, Progress(quiet=True))
    assert later.newest() is not None
    assert later.best_weights["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("has_links", [True, False])
def test_all_is_on_disk_before_a_checkpoint_gets_its_name(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """Or a power cut could leave a folder of that name with empty files."""
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def noted_sync(descriptor: int) -> None:
        sync(descriptor)
        done.append(os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), tmp_path))

    def noted_rename(path: Path, target: Path) -> Path:
        done.append(f"{path.name} → {target.name}")
        return rename(path, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc: which file was synced cannot be told")
    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    if not has_links:
        monkeypatch.setattr(os, "link", without_hard_links)
    store.save(Place(step=1, best_step=1), WEIGHTS, MOMENTS, {})
    aside = ".writing-00000001"
    named = done.index(f"{aside} → checkpoint-00000001")
    tensors = [f"{aside}/{n}.safetensors" for n in ("weights", "moments")]
    tensors += [] if has_links else [f"{aside}/best.safetensors"]
    assert set(tensors) <= set(done[:named])
    assert max(map(done.index, tensors)) < done.index(aside) < named
    assert done.index(".") > named


def test_a_full_disk_reported_by_the_tensor_writer_is_explained(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ResourceError, match="disk full"):
        store.save(Place(step=1), WEIGHTS, {}, {})


def test_without_hard_links_the_best_state_is_copied(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    for step in (1, 2):
        store.save(Place(step=step, best_step=1), {"w": torch.full((2,), float(step))}, {}, {})
    folder = tmp_path / "checkpoint-00000002"
    later = CheckpointStore(tmp_path, Progress(quiet=True))
    found = later.newest()
    assert found is not None and found.folder == folder
    assert later.best_weights["w"].tolist() == [1.0, 1.0]
    assert (folder / "best.safetensors").stat().st_nlink == 1


def test_everything_is_on_disk_before_a_checkpoint_gets_its_name(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "checkpoint-00000001"
    synced: set[int] = set()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        if not final.exists():
            synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    store.save(Place(step=1, best_step=1), WEIGHTS, MOMENTS, {})
    written = [final, *final.iterdir()]
    assert len(written) == 5
    assert {path.stat().st_ino for path in written} <= synced
