"""Progress on stderr, so that stdout has only results; and formatting of times, counts and tables.

The remaining time is the recent time per unit times the remaining units. The first unit is slower
than all others (memory is allocated, code is loaded), so no time is shown before the second one is
done, and the first is ignored. Without a terminal (a log file, CI), a line is printed from time to
time instead of a bar.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from attar.escaping import for_terminal

LINE_EVERY_S = 15.0
"""Seconds between two lines in a log."""
RECENT_WEIGHT = 0.1
"""Weight of the newest unit in the moving average of seconds per unit."""


def human_seconds(seconds: float) -> str:
    """Format a duration for people.

    Example:
        >>> human_seconds(75), human_seconds(3.21), human_seconds(4000)
        ('1 min 15 s', '3.2 s', '1 h 06 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> counted(1, "text"), counted(1480, "text")
        ('1 text', '1,480 texts')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Task:
    """One countable piece of work. Call `advance` after each unit, optionally with a note."""

    def __init__(
        self, sink: Progress, title: str, total: int, *, counts_work: bool = False
    ) -> None:
        self._sink, self.title, self.total = sink, for_terminal(title), total
        self._counts_work, self._num_timed = counts_work, 0
        self.done = 0
        self.text = ""
        self._mark = time.monotonic()
        self._seconds_per_unit: float | None = None

    def advance(self, units: int = 1, note: str = "") -> None:
        now = time.monotonic()
        latest = (now - self._mark) / max(units, 1)
        past = self._seconds_per_unit if self._num_timed > 1 else None
        self._num_timed += 1
        self._seconds_per_unit = latest if past is None else past + RECENT_WEIGHT * (latest - past)
        self._mark = now
        self.done += units
        self.text = for_terminal(note) or self.text
        self._sink.refresh(self)

    def skip(self, units: int) -> None:
        """Count units done in an earlier, interrupted run; they do not affect the speed."""
        self.done += units

    @property
    def seconds_left(self) -> float | None:
        """Estimated remaining seconds; None until two units have been timed."""
        if self._seconds_per_unit is None or self._num_timed < 2:
            return None
        return max(self.total - self.done, 0) * self._seconds_per_unit

    @property
    def count(self) -> str:
        """Progress as text."""
        if self._counts_work:
            return f"{100 * self.done // max(self.total, 1)} %"
        return f"{self.done}/{self.total}"

    def line(self) -> str:
        left = self.seconds_left
        eta = (
            "" if left is None or self.done >= self.total else f", about {human_seconds(left)} left"
        )
        words = f"  {self.text}" if self.text else ""
        return f"{self.title}: {self.count}{eta}{words}"


class Listener(Protocol):
    """Receives the messages of a `Progress`, even if it is quiet."""

    def said(self, line: str) -> None:
        """One line that stays."""
        ...

    def advanced(self, task: Task) -> None:
        """A task has advanced."""
        ...


class Progress:
    """Shows the progress of a run. `quiet=True` prints only warnings (for tests and `--json`)."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._bars: Any = None
        self._bar_ids: dict[int, Any] = {}
        self._last_line = 0.0
        self._warned: set[str] = set()
        self._listeners: list[Listener] = []

    @property
    def is_quiet(self) -> bool:
        return self._quiet

    @contextmanager
    def heard_by(self, listener: Listener) -> Generator[None]:
        """Context manager that adds a listener."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def say(self, text: str) -> None:
        """One line that stays."""
        line = for_terminal(text)
        for listener in self._listeners:
            listener.said(line)
        if not self._quiet:
            self._print(line)

    def warn(self, text: str) -> None:
        """Print a warning once, even if quiet."""
        if text not in self._warned:
            self._warned.add(text)
            line = f"warning: {for_terminal(text)}"
            for listener in self._listeners:
                listener.said(line)
            self._print(line)

    def _print(self, line: str) -> None:
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self._stream, flush=True)

    @contextmanager
    def task(self, title: str, total: int, *, counts_work: bool = False) -> Generator[Task]:
        """Show a task as a bar on a terminal, or as occasional lines elsewhere.

        Args:
            counts_work: whether to show percent, because units are of different kinds.
        """
        task = Task(self, title, total, counts_work=counts_work)
        if not self._quiet and self._stream.isatty():
            with self._terminal_bar(task):
                yield task
        else:
            yield task

    @contextmanager
    def _terminal_bar(self, task: Task) -> Generator[None]:
        outermost = self._bars is None
        if outermost:
            self._bars = _rich_bars(self._stream)
            self._bars.start()
        self._bar_ids[id(task)] = self._bars.add_task(
            task.title, total=task.total, words="", count=task.count
        )
        try:
            yield
        finally:
            self._bars.remove_task(self._bar_ids.pop(id(task)))
            if outermost:
                self._bars.stop()
                self._bars = None

    def refresh(self, task: Task) -> None:
        for listener in self._listeners:
            listener.advanced(task)
        if self._quiet:
            return
        if self._bars is not None and id(task) in self._bar_ids:
            left = task.seconds_left
            words = "" if left is None else f"about {human_seconds(left)} left  {task.text}"
            self._bars.update(
                self._bar_ids[id(task)], completed=task.done, words=words, count=task.count
            )
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            print("  " + task.line(), file=self._stream, flush=True)


def _rich_bars(stream: TextIO) -> Any:
    """Progress bars; rich is imported here because only terminals need it."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}", markup=False),
        TextColumn("{task.fields[words]}", markup=False),
    )
    return Bars(*columns, console=Console(file=stream), transient=True)


def aligned(rows: Sequence[Sequence[str]], names: int = 1) -> list[str]:
    """Align a table: the first `names` columns left, the others right; one line per row.

    Example:
        >>> aligned([("model", "MiB"), ("teacher", "86.7"), ("int8", "9")])
        ['model     MiB', 'teacher  86.7', 'int8        9']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return [line.rstrip() for line in lines]
