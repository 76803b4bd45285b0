"""Turns, ratios within rounds, and threads; the clock is the test's own, nothing here is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from attar.evaluation import speed
from attar.evaluation.config import Speed
from attar.evaluation.speed import (
    first_float,
    latency_metrics,
    measure_latency,
    take_turns,
)


class Clock:
    """Time that passes only when a model is called; a busy machine makes it pass faster."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def model(self, name: str, cost_ms: float, slowdown: Callable[[], float] = lambda: 1.0):
        def call() -> None:
            self.log.append(name)
            self.now += int(cost_ms * slowdown() * 1e6)

        return call


def test_models_take_turns_and_each_turn_opens_uncounted() -> None:
    clock = Clock()
    calls = {name: clock.model(name, 1) for name in "ABC"}
    turns: list[str] = []
    timed = take_turns(
        calls,
        rounds=3,
        calls_per_turn=2,
        clock=lambda: clock.now,
        after_turn=turns.append,
    )
    assert "".join(clock.log) == 3 * "AAABBBCCC"
    assert {name: times.shape for name, times in timed.items()} == dict.fromkeys("ABC", (3, 2))
    assert turns == 3 * list("ABC")


def test_only_the_model_itself_is_timed() -> None:
    clock = Clock()
    calls = {"A": clock.model("A", 2), "B": clock.model("B", 5)}
    timed = take_turns(calls, rounds=4, calls_per_turn=3, clock=lambda: clock.now)
    assert (timed["A"] == 2).all()
    assert (timed["B"] == 5).all()


def test_speedup_is_the_truth_on_a_machine_that_slows_down_from_round_to_round() -> None:
    clock = Clock()

    def slowdown() -> float:
        # A round is 2 models × (1 + 6) calls, after 2 to warm up: each has its own speed.
        return 2 + (len(clock.log) - 3) // 14

    calls = {"float": clock.model("f", 30, slowdown), "int8": clock.model("i", 10, slowdown)}
    timed = take_turns(calls, rounds=10, calls_per_turn=6, clock=lambda: clock.now)
    assert timed["float"].max() > 5 * timed["float"].min()
    entry = latency_metrics(timed, "float", batch=1, tokens=128, threads=2)["int8"]
    assert entry["speedup"]["median"] == pytest.approx(3)
    assert entry["speedup"]["against"] == "float"
    assert entry["speedup"]["rounds"] == 10


def test_speedup_is_the_median_of_round_ratios_with_the_extremes() -> None:
    ours = np.array([[1.0, 1, 9], [2, 2, 2], [4, 4, 4]])
    theirs = np.array([[6.0, 6, 6], [4, 4, 4], [40, 4, 4]])
    entry = latency_metrics({"o": ours, "t": theirs}, "t", batch=8, tokens=16, threads=1)["o"]
    assert entry["speedup"] == {"against": "t", "median": 2.0, "min": 1.0, "max": 6.0, "rounds": 3}
    assert (entry["p50"], entry["batch"], entry["tokens"], entry["threads"]) == (2.0, 8, 16, 1)
    assert entry["p95"] == pytest.approx(np.percentile([1, 1, 9, 2, 2, 2, 4, 4, 4], 95))
    assert entry["p95_over_p50"] == entry["p95"] / entry["p50"]
    assert entry["texts_per_s"] == 8 * 1000 / 2.0


def test_a_model_is_once_as_fast_as_itself() -> None:
    timed = {"f": np.random.default_rng(0).random((5, 4)) + 1}
    entry = latency_metrics(timed, "f", batch=1, tokens=128, threads=1)["f"]
    assert (entry["speedup"]["min"], entry["speedup"]["max"]) == (1.0, 1.0)


def test_speedups_are_told_against_the_first_float_model() -> None:
    assert first_float([("d", "openvino"), ("s", "float"), ("t", "float")]) == "s"
    assert first_float([("d", "openvino"), ("q", "simulated")]) == "d"


def test_the_progress_of_a_turn_is_the_time_that_a_warm_call_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = Clock(), list[int]()
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter_ns=lambda: clock.now))

    def calls_for(batch: int, tokens: int) -> dict[str, Callable[[], object]]:
        return {"a": clock.model("a", 2 * batch), "b": clock.model("b", tokens)}

    @contextmanager
    def counted(total: int) -> Iterator[Callable[[int], None]]:
        yield told.append
        assert sum(told) == total

    measure_latency(Speed(rounds=3, calls=1), [7], 1, "a", calls_for, counted)
    assert told == [*3 * [2_000, 7_000], *3 * [16_000, 7_000]]


def test_every_length_and_batch_size_is_measured_in_order_with_the_threads_stated() -> None:
    asked: list[tuple[int, int]] = []

    def calls_for(batch: int, tokens: int) -> dict[str, Callable[[], object]]:
        asked.append((batch, tokens))
        return {"a": lambda: None, "b": lambda: None}

    settings = Speed(batch_sizes=(4, 1), rounds=3, calls=1)
    found = measure_latency(settings, [23, 128], 2, "a", calls_for)
    assert asked == [(4, 23), (1, 23), (4, 128), (1, 128)]
    assert [(entry["batch"], entry["tokens"]) for entry in found["b"]] == asked
    assert {entry["threads"] for entry in found["a"]} == {2}
