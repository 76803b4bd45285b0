"""Row 30: an edited `result.json` is found by run, status and report; one that was written before
results had a hash is accepted and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attar.artifacts import read_result, result_hash, verify
from attar.errors import ArtifactError
from attar.recipe.outcome.status import status_of
from attar.recipe.report_again import report_again
from engine_steps import KINDS, run_small

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run_small(tmp_path / "small")
    return tmp_path / "small"


def edit(file: Path, change: Edit) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content, indent=2))


EDITS: dict[str, Edit] = {
    "accuracy": lambda c: c["metrics"]["models"]["int8"]["accuracy"].update(value=0.999),
    "last digit": lambda c: c["metrics"]["models"]["int8"]["accuracy"].update(
        value=c["metrics"]["models"]["int8"]["accuracy"]["value"] + 1e-15
    ),
    "removed metric": lambda c: c["metrics"]["models"].pop("teacher"),
    "seconds": lambda c: c.update(seconds=123.0),
    "version": lambda c: c["versions"].update(torch="9.9"),
    "hash of a file": lambda c: c["files"].update({"predictions.txt": "0" * 64}),
    "key": lambda c: c.update(key="0" * 16),
    "settings": lambda c: c["made_from"].update(seed=4),
    "hash": lambda c: c.update(sha256="0" * 64),
}


@pytest.mark.parametrize("name", EDITS)
def test_any_edit_is_found_by_run_status_and_report(folder: Path, name: str) -> None:
    edit(folder / "scores" / "result.json", EDITS[name])
    told = r"scores/result\.json was changed after it was written \(its sha256 differs\)"
    with pytest.raises(ArtifactError, match=told) as caught:
        run_small(folder)
    assert caught.value.exit_code == 3
    with pytest.raises(ArtifactError, match=told):
        report_again(folder, quiet=True, kinds=KINDS)
    states = {step.name: step.state for step in status_of(folder).steps}
    assert states == {**dict.fromkeys(states, "done"), "scores": "damaged"}


def test_white_space_and_the_order_of_names_are_no_edit(folder: Path) -> None:
    file = folder / "scores" / "result.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(content.items()))))
    assert [step.reused for step in run_small(folder).steps] == [True] * 5


def test_a_copied_step_folder_is_checked_alone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "scores", tmp_path / "copy")
    assert verify(tmp_path / "copy").sha256
    edit(tmp_path / "copy" / "result.json", EDITS["accuracy"])
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        verify(tmp_path / "copy")


def test_a_result_without_a_hash_is_accepted_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder / "scores" / "result.json", lambda c: (c.pop("sha256"), c.pop("made_from")))
    assert [step.reused for step in run_small(folder).steps] == [True] * 5
    said = capsys.readouterr().err
    assert "warning: scores: result.json has no hash of its own" in said
    assert said.count("warning") == 1


def test_the_hash_is_of_everything_else(folder: Path) -> None:
    result = json.loads((folder / "scores" / "result.json").read_text())
    assert result["sha256"] == result_hash(result)
    for name in set(result) - {"sha256"}:
        assert result_hash({**result, name: "other"}) != result["sha256"], name


def link_elsewhere(path: Path) -> None:
    """Move what is there out of the run and leave a link to it."""
    moved = path.parents[1] / f"elsewhere-{path.name}"
    path.rename(moved)
    path.symlink_to(moved)


STRANGE: dict[str, Callable[[Path], object]] = {
    "added FIFO": lambda step: os.mkfifo(step / "pipe"),
    "added link": lambda step: (step / "link").symlink_to(step / "predictions.txt"),
    "added dangling link": lambda step: (step / "link").symlink_to("nowhere"),
    "added link to a folder": lambda step: (step / "link").symlink_to("/usr"),
    "added device link": lambda step: (step / "zero").symlink_to("/dev/zero"),
    "file becomes a link": lambda step: link_elsewhere(step / "predictions.txt"),
    "result becomes a link": lambda step: link_elsewhere(step / "result.json"),
    "folder becomes a link": link_elsewhere,
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_no_step_writes_is_refused(folder: Path, name: str) -> None:
    STRANGE[name](folder / "scores")
    with pytest.raises(ArtifactError, match=r" is a (link|FIFO)") as caught:
        run_small(folder)
    assert caught.value.exit_code == 3
    with pytest.raises(ArtifactError, match=r" is a (link|FIFO)"):
        report_again(folder, quiet=True, kinds=KINDS)


def test_a_result_that_is_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "scores" / "result.json").unlink()
    os.mkfifo(folder / "scores" / "result.json")
    with pytest.raises(ArtifactError, match="FIFO"):
        read_result(folder / "scores")
    with pytest.raises(ArtifactError):
        run_small(folder)
    assert status_of(folder).steps[3].state == "waiting"
