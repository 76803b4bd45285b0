"""Row 27, of a run's own folder: a link, a FIFO or a folder where it writes is refused or replaced;
nothing outside is read, emptied or waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from attar.errors import AttarError
from attar.recipe.outcome.status import status_of
from attar.recipe.report_again import report_again
from attar.recipe.running.lock import lock_holder, run_lock
from engine_steps import KINDS, RECIPE, run_small

GATE = '[[gates]]\nmetric = "scores.int8.size_mib"\nat_least = 0\n'
SWEEP = '[sweep]\nsteps = ["int8"]\nweight_bits = [4, 8]\n'
WHOLE = RECIPE + GATE.replace("scores.int8", "scores.teacher") + SWEEP


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside the run's folder."""
    (tmp_path / "victim").write_text("precious")
    return tmp_path / "victim"


LOCKS: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda lock, victim: lock.symlink_to(victim),
    "dangling link": lambda lock, victim: lock.symlink_to(victim.with_name("made")),
    "fifo": lambda lock, victim: os.mkfifo(lock),
    "folder": lambda lock, victim: lock.mkdir(),
    "device": lambda lock, victim: lock.symlink_to("/dev/full"),
}


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_that_is_no_file_is_refused_and_nothing_is_emptied(
    tmp_path: Path, victim: Path, kind: str
) -> None:
    folder = tmp_path / "small"
    run_small(folder)
    (folder / ".lock").unlink()
    LOCKS[kind](folder / ".lock", victim)
    for act in (
        lambda: run_small(folder),
        lambda: report_again(folder, quiet=True, kinds=KINDS),
        lambda: status_of(folder),
        lambda: lock_holder(folder),
        lambda: run_lock(folder).__enter__(),
    ):
        with pytest.raises(AttarError, match=r"\.lock is a link, a folder or a device") as caught:
            act()
        assert caught.value.exit_code == 2
    assert victim.read_text() == "precious"
    assert not victim.with_name("made").exists()


@pytest.mark.parametrize(
    "name", ["recipe.toml", "gates.json", "sweep.json", "crash.txt", ".recipe.json.{pid}"]
)
def test_a_file_of_the_run_that_is_a_link_is_replaced_and_not_written_through(
    tmp_path: Path, victim: Path, name: str
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / name.format(pid=os.getpid())).symlink_to(victim)
    run_small(folder, WHOLE)
    assert victim.read_text() == "precious"
    assert not any(path.is_symlink() for path in folder.iterdir())


def test_a_crash_is_not_written_through_a_link(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "small"

    def crash(config: object, context: object) -> None:
        (folder / "crash.txt").symlink_to(victim)
        raise ZeroDivisionError("a bug, on purpose")

    monkeypatch.setattr("engine_steps.train", crash)
    with pytest.raises(ZeroDivisionError):
        run_small(folder)
    assert victim.read_text() == "precious"
    assert "a bug, on purpose" in (folder / "crash.txt").read_text()


@pytest.mark.parametrize(
    "place",
    [
        ".staging",
        ".scratch",
        ".replaced",
        ".kept",
        ".scratch/student-{key}",
        ".scratch/student-{key}/state",
    ],
)
def test_a_working_folder_that_is_a_link_is_refused(tmp_path: Path, place: str) -> None:
    folder, outside = tmp_path / "small", tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.txt").write_text("years of work")
    key = next(step.key for step in run_small(tmp_path / "other").steps if step.name == "student")
    link = folder / place.format(key=key)
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(AttarError, match="is a link, but a run only writes inside its own folder"):
        run_small(folder)
    assert [path.name for path in outside.iterdir()] == ["thesis.txt"]


def test_a_link_where_a_step_goes_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    for target in (tmp_path, tmp_path / "nowhere"):
        (folder / "student").symlink_to(target)
        with pytest.raises(AttarError, match="student is a link") as caught:
            run_small(folder)
        assert caught.value.exit_code == 3
        (folder / "student").unlink()
