"""Row 12: a pickle where weights should be. It is refused, and the code in it never runs."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from attar.errors import ArtifactError
from attar.models.load import load_model, save_model


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "the-code-ran"


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


def test_the_bomb_is_a_real_one(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.ckpt"])
def test_a_folder_with_only_a_pickle_is_refused(folder: Path, mark: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ArtifactError, match=f"only {name}.*never does.*safetensors"):
        load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_named_safetensors_is_refused(folder: Path, mark: Path, protocol: int) -> None:
    content = pickle.dumps(Bomb(mark), protocol=protocol)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match="is a pickle with the name of a safetensors file"):
        load_model(folder)
    assert not mark.exists()


def test_a_torch_file_named_safetensors_is_refused(folder: Path) -> None:
    torch.save({"a": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="is a pickle with the name of a safetensors file"):
        load_model(folder)


def test_a_pickle_beside_safetensors_is_left_alone(folder: Path, mark: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    (folder / "training_args.bin").write_bytes(pickle.dumps(Bomb(mark)))
    load_model(folder)
    assert not mark.exists()


def test_an_adapter_beside_the_weights_is_not_followed(folder: Path, mark: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    load_model(folder)
    assert not mark.exists()


def test_no_pickle_is_ever_written(folder: Path, tmp_path: Path) -> None:
    save_model(load_model(folder), tmp_path / "saved")
    suffixes = {path.suffix for path in (tmp_path / "saved").iterdir()}
    assert suffixes == {".json", ".safetensors"}
