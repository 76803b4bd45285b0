"""The seconds of a step are the sum over its sessions, however they ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from attar.artifacts import read_result
from attar.errors import StoppedError
from attar.recipe.running.time_left import session
from engine_steps import run_small, start_small, until_waiting

PAUSE_S = 0.3


def scratch_of(folder: Path) -> Path:
    scratch = folder / "student-0123456789abcdef"
    scratch.mkdir()
    return scratch


def test_a_session_goes_on_counting_where_a_stopped_one_ended(tmp_path: Path) -> None:
    scratch = scratch_of(tmp_path)
    with pytest.raises(StoppedError), session(scratch):
        time.sleep(PAUSE_S)
        raise StoppedError("asked to")
    with session(scratch) as seconds:
        assert seconds() >= PAUSE_S
    assert list(tmp_path.iterdir()) == [scratch]
    with session(scratch) as seconds:  # another step under this key
        assert seconds() < PAUSE_S


def test_a_killed_session_counts_up_to_its_last_file(tmp_path: Path) -> None:
    scratch = scratch_of(tmp_path)
    killed = session(scratch)
    killed.__enter__()
    (note,) = (path for path in tmp_path.iterdir() if path != scratch)
    as_killed = note.read_bytes(), note.stat().st_mtime
    (scratch / "checkpoint").touch()
    os.utime(scratch / "checkpoint", (0, as_killed[1] + 40))
    with session(scratch) as seconds:
        assert 40 <= seconds() < 80
    note.write_text("damaged")
    with session(scratch) as seconds:
        assert seconds() < 40


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_result_json_counts_the_sessions_before_a_resume(tmp_path: Path, how: int) -> None:
    folder = tmp_path / "runs" / "small"
    process = start_small(folder, at="student:3")
    until_waiting(folder, process)
    time.sleep(PAUSE_S)
    state = next((folder / ".scratch").glob("student-*/state"))
    if how == signal.SIGKILL:  # as if it had been at work until now
        state.touch()
    process.send_signal(how)
    process.communicate(timeout=60)
    run_small(folder)
    assert PAUSE_S <= read_result(folder / "student").seconds < PAUSE_S + 60
    assert not any((folder / ".scratch").iterdir())
