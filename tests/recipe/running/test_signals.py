"""Signals become a question."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from attar.recipe.running.signals import STOPPING, stop_requests


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_asked_for_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(s) for s in STOPPING]
    with stop_requests(quiet=True) as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), number)
        assert should_stop()
    assert [signal.getsignal(s) for s in STOPPING] == before


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), stop_requests(quiet=True):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_thread_that_cannot_catch_signals_is_never_asked_to_stop() -> None:
    answers: list[bool] = []

    def ask() -> None:
        with stop_requests() as should_stop:
            answers.append(should_stop())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [False]


def test_a_signal_is_announced_unless_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        with stop_requests(quiet=quiet):
            os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err.count("SIGTERM: saving, then stopping") == 1
