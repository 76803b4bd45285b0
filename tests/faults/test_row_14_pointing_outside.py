"""Row 14: an index or a link that points outside its folder. It is refused before anything is read
there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from attar.errors import ArtifactError
from attar.models.load import load_model
from attar.models.sources.references import model_fingerprint


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> Path:
    """The weights lie outside the model folder."""
    copied = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    (tmp_path / "elsewhere").mkdir()
    (copied / "model.safetensors").rename(tmp_path / "elsewhere" / "model.safetensors")
    return copied


@pytest.mark.parametrize("style", ["up", "absolute", "deep", "windows"])
def test_an_index_that_points_outside_is_refused(folder: Path, tmp_path: Path, style: str) -> None:
    outside = tmp_path / "elsewhere" / "model.safetensors"
    name = {
        "up": "../elsewhere/model.safetensors",
        "absolute": str(outside),
        "deep": "inner/../../elsewhere/model.safetensors",
        "windows": "..\\elsewhere\\model.safetensors",
    }[style]
    index = {"metadata": {}, "weight_map": {"bert.pooler.dense.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match=r"index\.json points at .*refused"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_that_points_outside_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "elsewhere" / name
    if not outside.exists():
        (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(ArtifactError, match=r"is a link to .*elsewhere.*refused"):
        load_model(folder)
    with pytest.raises(ArtifactError, match="is a link to"):
        model_fingerprint(str(folder), tmp_path)


def test_a_linked_shard_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "shard.safetensors").symlink_to(tmp_path / "elsewhere" / "model.safetensors")
    index = {"weight_map": {"a": "shard.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match="is a link to"):
        load_model(folder)


def test_a_link_within_the_folder_is_fine(folder: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "elsewhere" / "model.safetensors", folder / "weights.safetensors")
    (folder / "model.safetensors").symlink_to("weights.safetensors")
    load_model(folder)


def test_a_folder_that_only_looks_like_the_hub_cache_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    """Links may go from a snapshot to the blobs of the same repository, and nowhere else."""
    snapshot = tmp_path / "one" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    other = tmp_path / "two" / "blobs"
    other.mkdir(parents=True)
    (tmp_path / "elsewhere" / "model.safetensors").rename(other / "w")
    (snapshot / "model.safetensors").symlink_to(other / "w")
    with pytest.raises(ArtifactError, match="is a link to"):
        load_model(snapshot)
