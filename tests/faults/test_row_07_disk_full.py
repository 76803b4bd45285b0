"""Row 7: a full disk is a clean error with the free bytes, and the old artifact stays intact.

A real one: a small tmpfs, mounted for the test and filled up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from attar.artifacts import verify, write_json
from attar.errors import ResourceError
from engine_steps import RECIPE, run_small
from small_disks import fill, small_disk_of


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_of(512, tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize("free_kib", [0, 4, 12, 16, 24, 40])
def test_a_run_on_a_full_disk_fails_cleanly_wherever_the_disk_fills_up(
    small_disk: Path, free_kib: int
) -> None:
    folder = small_disk / "small"
    first = run_small(folder)
    before = {step.name: (folder / step.name / "result.json").read_bytes() for step in first.steps}
    filler = fill(small_disk, free_kib)
    changed = RECIPE.replace("seed = 3", "seed = 4")
    with pytest.raises(ResourceError) as caught:
        run_small(folder, changed)
    assert caught.value.exit_code == 4
    assert "disk full while writing below" in str(caught.value)
    assert "MiB are free" in str(caught.value)
    for name, result in before.items():
        verify(folder / name)
        if (folder / name / "result.json").read_bytes() != result:
            key = json.loads((folder / "recipe.json").read_text())["keys"][name]
            assert json.loads((folder / name / "result.json").read_text())["key"] == key
    filler.unlink()
    run_small(folder, changed)
    assert all(step.reused for step in run_small(folder, changed).steps)


def test_a_disk_that_is_full_from_the_start_is_said(small_disk: Path) -> None:
    fill(small_disk, 0)
    with pytest.raises(ResourceError, match=r"0\.0 MiB are free"):
        run_small(small_disk / "runs" / "small")


def test_the_bytes_needed_are_told_and_the_old_file_stays(small_disk: Path) -> None:
    write_json(small_disk / "a.json", {"old": True})
    fill(small_disk, 100)
    with pytest.raises(ResourceError, match=r"0\.1 MiB are free, 0\.3 MiB are needed"):
        write_json(small_disk / "a.json", {"new": "x" * 300 * 1024})
    assert json.loads((small_disk / "a.json").read_text()) == {"old": True}
    assert sorted(path.name for path in small_disk.iterdir()) == ["a.json", "filler"]
