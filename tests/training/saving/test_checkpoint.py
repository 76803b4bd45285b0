"""What a checkpoint holds and what it costs."""

from __future__ import annotations

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
    assert all(torch.equal(found.weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert all(torch.equal(found.moments[name], MOMENTS[name]) for name in MOMENTS)


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


def test_a_full_disk_reported_by_the_tensor_writer_is_explained(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ResourceError, match="disk full"):
        store.save(Place(step=1), WEIGHTS, {}, {})
