"""SIGTERM and SIGINT become a question a step can ask: should I stop?

The first signal sets a flag: a step that trains saves its state and raises `StoppedError`, any
other step ends and the run stops before the next one. A second SIGINT (Ctrl-C again) interrupts at
once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_requests(say: Callable[[str], None]) -> Generator[Callable[[], bool]]:
    """Yield `should_stop`; restore the handlers afterwards. Outside the main thread signals cannot
    be caught, and it always answers no."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if arrived and number == signal.SIGINT:
            raise KeyboardInterrupt
        arrived.append(number)
        again = "; once more stops at once" if number == signal.SIGINT else ""
        say(f"{signal.Signals(number).name} received: saving, then stopping{again}")

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield lambda: bool(arrived)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
