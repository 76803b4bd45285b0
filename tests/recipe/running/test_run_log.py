"""run.log has what a run said, and status how far it is."""

from __future__ import annotations

import io
import re
import signal
from pathlib import Path

import pytest

from attar.errors import ArtifactError
from attar.progress import Progress
from attar.recipe.outcome.status import status_of
from attar.recipe.running import run_log
from attar.recipe.running.run_log import LOG_FILE, NOW_FILE, logged, now_of
from engine_steps import run_small, start_small, until_waiting

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ")


def said(folder: Path) -> list[str]:
    lines = (folder / LOG_FILE).read_text().splitlines()
    assert all(TIME.match(line) for line in lines)
    return [TIME.sub("", line, count=1) for line in lines]


def test_a_quiet_run_is_logged_and_each_session_is_added(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    run_small(folder)
    first = said(folder)
    assert first[0].startswith("begin, process ")
    assert "step 1/5 teacher (train)" in first
    assert first[-1] == "done"
    run_small(folder)
    assert said(folder)[: len(first)] == first
    assert any("reused, same key" in line for line in said(folder)[len(first) :])


def test_what_ends_a_run_is_its_last_line(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    process = start_small(folder, at="student:2")
    until_waiting(folder, process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert said(folder)[-1].startswith("ended by StoppedError: ")
    assert not (folder / NOW_FILE).exists()


def test_the_work_at_hand_is_told_while_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "NOW_EVERY_S", 0.0)
    progress = Progress(quiet=True)
    with logged(tmp_path, progress), progress.task("student: training", 4) as task:
        assert now_of(tmp_path) == ""
        task.advance()
        assert now_of(tmp_path) == "student: training: 1/4"
        task.advance()
        assert re.fullmatch(r"student: training: 2/4, about .* s left", now_of(tmp_path))
    assert now_of(tmp_path) == ""
    (tmp_path / NOW_FILE).write_text('{"title": 3}')
    assert now_of(tmp_path) == ""


def test_status_tells_a_running_step_how_far_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    process = start_small(folder, at="student:2")
    until_waiting(folder, process)
    (folder / NOW_FILE).write_text(
        '{"title": "student: training", "count": "40 %", "seconds_left": 75.0}'
    )
    status = status_of(folder)
    assert status.now == "student: training: 40 %, about 1 min 15 s left"
    assert status.text().splitlines()[1] == f"  {status.now}"
    process.kill()
    process.communicate()
    assert status_of(folder).now == ""


def test_a_link_where_the_log_goes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    (tmp_path / LOG_FILE).symlink_to(tmp_path / "other")
    stream = io.StringIO()
    with (
        pytest.raises(ArtifactError, match="not a regular file"),
        logged(tmp_path, Progress(stream)),
    ):
        pass
    assert (tmp_path / "other").read_text() == ""
