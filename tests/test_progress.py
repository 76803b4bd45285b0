"""Progress: on stderr, honest about the time left, silent when quiet, never silent about a
warning."""

from __future__ import annotations

import io

import pytest

from attar import progress as module
from attar.progress import Progress, Task, human_seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock the test turns: `clock[0] += seconds`."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_nothing_is_promised_by_the_first_unit_which_is_slow(clock: list[float]) -> None:
    task = Task(Progress(io.StringIO()), "train", 10)
    assert task.seconds_left is None
    assert task.line() == "train: 0/10"
    clock[0] += 1000
    task.advance(note="loss 0.7")
    assert task.line() == "train: 1/10  loss 0.7"
    clock[0] += 2
    task.advance(note="loss 0.5")
    assert task.seconds_left == pytest.approx(16)
    assert task.line() == "train: 2/10, about 16 s left  loss 0.5"


def test_work_of_several_kinds_is_told_in_percent(clock: list[float]) -> None:
    """Of 21 units 14 are steps: 9/21 beside "step 9/14" would be two totals."""
    task = Task(Progress(io.StringIO()), "train", 21, counts_work=True)
    task.advance(9, note="step 9/14")
    assert task.line() == "train: 42 %  step 9/14"


def test_the_time_left_follows_the_latest_speed(clock: list[float]) -> None:
    task = Task(Progress(io.StringIO(), quiet=True), "train", 1000)
    for _ in range(50):
        clock[0] += 1.0
        task.advance()
    for _ in range(50):
        clock[0] += 3.0
        task.advance()
    assert task.seconds_left == pytest.approx(900 * 3, rel=0.02)


def test_skipped_units_count_and_teach_no_speed(clock: list[float]) -> None:
    task = Task(Progress(io.StringIO(), quiet=True), "train", 11)
    task.skip(8)
    assert task.seconds_left is None
    for _ in range(2):
        clock[0] += 5
        task.advance()
    assert task.seconds_left == pytest.approx(5)


def test_a_log_gets_a_line_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(stream).task("train", 100) as task:
        for _ in range(100):
            clock[0] += 1
            task.advance()
    lines = stream.getvalue().splitlines()
    assert 5 <= len(lines) <= 8
    assert lines[0].startswith("  train: 1/100")


def test_quiet_says_nothing_but_warnings() -> None:
    stream = io.StringIO()
    progress = Progress(stream, quiet=True)
    progress.say("hello")
    with progress.task("train", 1) as task:
        task.advance()
    progress.warn("the recipe changed")
    assert stream.getvalue() == "warning: the recipe changed\n"


def test_a_terminal_gets_a_bar_and_lines_that_stay() -> None:
    stream = Terminal()
    progress = Progress(stream)
    with progress.task("outer", 2) as outer, progress.task("inner", 1) as inner:
        inner.advance()
        outer.advance(note="loss 0.1")
        progress.say("a line with [brackets]")
        progress.warn("careful")
    assert "a line with [brackets]" in stream.getvalue()
    assert "warning: careful" in stream.getvalue()


def test_a_warning_is_said_once() -> None:
    stream = io.StringIO()
    progress = Progress(stream, quiet=True)
    for text in ("same", "same", "other"):
        progress.warn(text)
    assert stream.getvalue() == "warning: same\nwarning: other\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3600, "1 h 00 min")],
)
def test_seconds_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text
