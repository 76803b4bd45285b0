"""Row 20: a second run in the same folder refuses and names the first; a killed one holds
nothing."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from attar.errors import UsageError
from attar.recipe.report_again import report_again
from engine_steps import KINDS, run_small, start_small, until_waiting


def test_the_second_run_refuses_naming_host_and_process_and_disturbs_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "small"
    first = start_small(folder, at="student:2")
    until_waiting(folder, first)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    with pytest.raises(UsageError) as caught:
        run_small(folder)
    assert f"process {first.pid} on {socket.gethostname()}" in str(caught.value)
    second = start_small(folder)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"process {first.pid} on {socket.gethostname()}" in err
    with pytest.raises(UsageError):
        report_again(folder, quiet=True, kinds=KINDS)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 75


def test_a_killed_run_leaves_the_folder_free(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    first = start_small(folder, at="student:2")
    until_waiting(folder, first)
    first.kill()
    first.communicate()
    assert [step.name for step in run_small(folder).steps if step.reused] == ["teacher"]


def test_runs_in_two_folders_do_not_meet(tmp_path: Path) -> None:
    first = start_small(tmp_path / "a" / "small", at="student:2")
    until_waiting(tmp_path / "a" / "small", first)
    assert run_small(tmp_path / "b" / "small").steps
    first.kill()
    first.communicate()
