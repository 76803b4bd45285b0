"""Row 8: truncated safetensors. The error names the file, the bytes expected and found, and what to
do.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from attar.errors import ArtifactError
from attar.models.load import load_model


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


@pytest.mark.parametrize("share", [0.999, 0.5])
def test_a_file_cut_in_its_tensors_is_told_with_both_sizes(folder: Path, share: float) -> None:
    file = folder / "model.safetensors"
    whole = file.stat().st_size
    cut = int(whole * share)
    with file.open("r+b") as stream:
        stream.truncate(cut)
    with pytest.raises(ArtifactError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert str(file) in message
    assert f"describes {whole} bytes, the file has {cut}" in message
    assert "get it again" in message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("size", [0, 3, 8, 100])
def test_a_file_cut_in_its_header_is_told(folder: Path, size: int) -> None:
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate(size)
    with pytest.raises(ArtifactError, match=f"it is {size} bytes long, and its header alone"):
        load_model(folder)


def test_a_file_with_bytes_behind_its_end_is_told(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ArtifactError, match="too long"):
        load_model(folder)


def test_a_file_that_is_something_else_is_told(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        load_model(folder)


def test_overlapping_tensors_are_refused(folder: Path) -> None:
    """The size fits, the offsets do not: the format's own reader has the last word."""
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    place = content.index(b'"data_offsets":[')
    begin = place + len(b'"data_offsets":[')
    content[begin : begin + 1] = b"1" if content[begin : begin + 1] == b"0" else b"9"
    file.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="damaged"):
        load_model(folder)
