"""One run in one folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from attar.errors import UsageError
from attar.recipe.running.lock import Holder, lock_holder, run_lock


def test_a_held_folder_refuses_and_names_the_holder(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        holder = lock_holder(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()
        told = rf"process {os.getpid()} on {holder.host}"
        with pytest.raises(UsageError, match=told), run_lock(tmp_path):
            raise AssertionError("taken twice")


def test_a_released_folder_is_free_and_looking_takes_nothing(tmp_path: Path) -> None:
    assert lock_holder(tmp_path) is None
    for _ in range(2):
        with run_lock(tmp_path):
            pass
        assert lock_holder(tmp_path) is None


def test_a_failure_releases_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        raise ZeroDivisionError
    assert lock_holder(tmp_path) is None


def test_a_lock_file_with_rubbish_still_locks(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("{rubbish")
    with run_lock(tmp_path):
        (tmp_path / ".lock").write_text("{rubbish")
        with pytest.raises(UsageError, match="another process"), run_lock(tmp_path):
            raise AssertionError("taken twice")
        assert lock_holder(tmp_path) == Holder("an unknown host", 0, "an unknown time")


def test_two_can_look_at_the_same_moment(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        pass
    with (tmp_path / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert lock_holder(tmp_path) is None
