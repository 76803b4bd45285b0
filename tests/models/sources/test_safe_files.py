"""What may be read of a model folder is decided from names, links and headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from attar.errors import ArtifactError, ModelError
from attar.models.sources.safe_files import check_header, read_config, read_model_files


def test_whole_files_of_any_tensors_pass(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    for tensors in ({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.int8)}, {}):
        save_file(tensors, file)
        check_header(file)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=64), length=st.integers(0, 80))
def test_any_bytes_are_read_or_refused_never_worse(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, length: int
) -> None:
    file = tmp_path_factory.mktemp("bytes") / "model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + content)
    try:
        check_header(file)
    except ArtifactError as error:
        assert str(file) in str(error)


@pytest.mark.parametrize(
    "header",
    ["[]", '{"a": 1}', '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}', "{"],
)
def test_a_header_that_is_none_is_damaged(header: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(ArtifactError, match="damaged"):
        check_header(file)


def test_a_folder_that_is_no_model_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        read_model_files(tmp_path / "none")
    with pytest.raises(ModelError, match=r"no config\.json"):
        read_model_files(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no model_type"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ArtifactError, match="list, expected a JSON object"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ArtifactError, match=r"no model\.safetensors"):
        read_model_files(tmp_path)
    assert read_model_files(tmp_path, weights=False).weights == ()


@pytest.mark.parametrize(("name", "kind"), [("qparams.json", "quantized"), ("deploy.json", "exp")])
def test_models_made_here_are_told_apart_from_float_ones(
    name: str, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match=f"{kind}.* a float model is needed"):
        read_model_files(tmp_path)


def test_an_index_names_its_files_and_a_missing_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    save_file({"a": torch.zeros(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    names = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    found = read_model_files(tmp_path).weights
    assert [file.name for file in found] == ["model-1.safetensors", "model-2.safetensors"]
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"names 2 files, and model-2\.safetensors is missing"):
        read_model_files(tmp_path)
    index.write_text("{}")
    with pytest.raises(ArtifactError, match="no weight_map"):
        read_model_files(tmp_path)
