"""Handles SIGTERM and SIGINT by a flag that steps check.

After the first signal, a train step saves a checkpoint and raises `StoppedError`; other steps
finish, and the run stops before the next one. A second SIGINT (Ctrl-C) interrupts immediately. The
handler writes with `os.write`, because a signal may arrive during a `print`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)
STDERR = 2


@contextmanager
def stop_requests(quiet: bool = False) -> Generator[Callable[[], bool]]:
    """Yield `should_stop`; restore the handlers afterwards.

    Only the main thread can handle signals. In other threads, `should_stop` is always False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if arrived and number == signal.SIGINT:
            raise KeyboardInterrupt
        arrived.append(number)
        if not quiet:
            again = " (Ctrl-C again: stop at once)" if number == signal.SIGINT else ""
            os.write(
                STDERR, f"\n{signal.Signals(number).name}: saving, then stopping{again}\n".encode()
            )

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield lambda: bool(arrived)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
