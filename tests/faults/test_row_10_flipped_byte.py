"""Row 10: one byte flipped in what a step published is found by its manifest before anything uses
it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from attar.artifacts import Result, put_in_place, seal, verify
from attar.errors import ArtifactError
from engine_steps import run_small


def flip(file: Path, at: int) -> None:
    """Flip one bit of the byte at a place."""
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "file",
    ["teacher/model/weights", "int8/weights", "scores/predictions.txt", "report/index.html"],
)
def test_a_run_that_would_reuse_a_damaged_file_names_it_and_the_remedy(
    tmp_path: Path, file: str
) -> None:
    folder = tmp_path / "small"
    run_small(folder)
    flip(folder / file, 5)
    step, _, inside = file.partition("/")
    with pytest.raises(ArtifactError) as caught:
        run_small(folder)
    assert caught.value.exit_code == 3
    assert f"{inside} was changed after it was written (sha256 differs)" in str(caught.value)
    assert str(folder / step) in str(caught.value)
    shutil.rmtree(folder / step)
    assert [s.name for s in run_small(folder).steps if not s.reused] == [step]
    assert all(s.reused for s in run_small(folder).steps)


def test_a_flipped_byte_in_real_safetensors_is_found_wherever_it_is(
    tmp_path: Path, tiny_bert: Path
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "staging" / "model")
    seal(tmp_path / "staging", Result("teacher", "train", "k"))
    put_in_place(tmp_path / "staging", tmp_path / "teacher")
    weights = tmp_path / "teacher" / "model" / "model.safetensors"
    size = weights.stat().st_size
    for at in (0, 100, size // 2, size - 1):
        flip(weights, at)
        with pytest.raises(ArtifactError, match=r"model/model\.safetensors was changed"):
            verify(tmp_path / "teacher")
        flip(weights, at)
    assert verify(tmp_path / "teacher")
