"""Row 7 for corpora: a disk that fills while a shard, its scores or a selection is written is a
clean error; the shards before it stay, and the run goes on from there to the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import corpora
from attar.errors import ResourceError
from attar.recipe.run import run_recipe
from small_disks import fill, small_disk_of

RECIPE = corpora.RECIPE.partition("[steps.student]")[0]
STEPS = ("corpus", "by_teacher", "by_reference", "kept")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = corpora.write_recipe(tmp_path_factory.mktemp("selected"), RECIPE)
    run_recipe(recipe, out=recipe.parent / "whole", quiet=True, estimates={})
    return recipe


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_of(512, tmp_path / "disk") as disk:
        yield disk


def contents(run: Path) -> dict[str, bytes]:
    files = (file for step in STEPS for file in sorted((run / step).iterdir()))
    return {str(f.relative_to(run)): f.read_bytes() for f in files if f.name != "result.json"}


@pytest.mark.parametrize("free_kib", [16, 44, 60, 76, 92, 104, 120])
def test_wherever_the_disk_fills_up_the_run_goes_on_to_the_same_bytes(
    recipe: Path, small_disk: Path, free_kib: int
) -> None:
    filler = fill(small_disk, free_kib)
    with pytest.raises(ResourceError) as caught:
        run_recipe(recipe, out=small_disk / "runs", quiet=True, estimates={})
    assert caught.value.exit_code == 4
    assert "disk full while writing below" in str(caught.value)
    assert "MiB are free" in str(caught.value)
    run = small_disk / "runs" / "selected"
    published = [step for step in STEPS if (run / step).exists()]
    assert all((run / step / "result.json").is_file() for step in published)
    assert len(published) < len(STEPS)
    filler.unlink()
    run_recipe(recipe, out=small_disk / "runs", quiet=True, estimates={})
    assert contents(run) == contents(recipe.parent / "whole" / "selected")
