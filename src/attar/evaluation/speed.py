"""Latency of one forward pass, measured so that models can be compared on a noisy machine.

The speed of shared cores varies by tens of percent within seconds. So models take turns,
A B C A B C …, and are compared *within* a round:

    speedup of B in round r = median ms of the float model / median ms of B,  both in round r
    reported: the median over rounds, with the minimum and the maximum

Each turn starts with one untimed call, which loads the model into the caches and gives the worker
threads of the previous model time to stop spinning. All runtimes get the same number of threads. If
the ratios of the rounds include values below and above 1, the models are equally fast or the
machine was too noisy to tell; reports say so. A call is `Form.logits` on a prepared batch;
tokenization is the same for all models and is not included.
Shapes: R rounds, C calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import Any

import numpy as np

from attar.cores import torch_threads
from attar.evaluation.config import Speed

Call = Callable[[], object]
Counted = Callable[[int], AbstractContextManager[Callable[[int], None]]]
NS_PER_MS = 1e6
MS_PER_S = 1e3


def warm_us(calls: Mapping[str, Call]) -> dict[str, int]:
    """Microseconds of every model's second call; its first one also allocates and compiles."""
    found: dict[str, int] = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter_ns()
        call()
        found[name] = max((time.perf_counter_ns() - start) // 1000, 1)
    return found


def take_turns(
    calls: Mapping[str, Call],
    *,
    rounds: int,
    calls_per_turn: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    after_turn: Callable[[str], None] = lambda name: None,
) -> dict[str, np.ndarray]:
    """Time all models, which are warm, in turns. Returns milliseconds of every call (R, C).

    Args:
        clock: returns nanoseconds; replaced in tests.
    """
    times = {name: np.empty((rounds, calls_per_turn)) for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            call()
            for i in range(calls_per_turn):
                start = clock()
                call()
                times[name][turn, i] = (clock() - start) / NS_PER_MS
            after_turn(name)
    return times


def latency_metrics(
    timed: Mapping[str, np.ndarray], against: str, *, batch: int, tokens: int, threads: int
) -> dict[str, dict[str, Any]]:
    """Latency metrics: p50, p95 and their ratio (how stable the machine was), texts per second, the
    median of each round (for pairwise comparisons), and the speedup over `against`."""
    metrics: dict[str, dict[str, Any]] = {}
    of_rounds = {name: np.median(milliseconds, axis=1) for name, milliseconds in timed.items()}
    for name, milliseconds in timed.items():
        ratios = of_rounds[against] / of_rounds[name]
        p50, p95 = np.percentile(milliseconds, [50, 95]).tolist()
        metrics[name] = {
            "p50": p50,
            "p95": p95,
            "batch": batch,
            "tokens": tokens,
            "threads": threads,
            "p95_over_p50": p95 / p50,
            "texts_per_s": batch * MS_PER_S / p50,
            "calls": milliseconds.size,
            "round_p50": of_rounds[name].round(4).tolist(),
            "speedup": {
                "against": against,
                "median": float(np.median(ratios)),
                "min": float(ratios.min()),
                "max": float(ratios.max()),
                "rounds": len(ratios),
            },
        }
    return metrics


def measure_latency(
    speed: Speed,
    lengths: Sequence[int],
    threads: int,
    against: str,
    calls_for: Callable[[int, int], Mapping[str, Call]],
    counted: Counted = lambda total: nullcontext(lambda units: None),
) -> dict[str, list[dict[str, Any]]]:
    """Model → its latency at each length and batch size.

    Args:
        lengths: text lengths, in tokens.
        against: the reference model of speedups.
        calls_for: batch size, tokens → model → a forward pass on such a batch.
        counted: total microseconds → progress, which is told those of each turn. They are estimated
            from one warm call: turns of different models and shapes take very different times.
    """
    shapes = list(product(lengths, speed.batch_sizes))
    calls = [calls_for(batch, tokens) for tokens, batch in shapes]
    found: dict[str, list[dict[str, Any]]] = {}
    with torch_threads(threads):
        turns = [warm_us(each) for each in calls]
        with counted(speed.rounds * sum(sum(each.values()) for each in turns)) as advance:
            for (tokens, batch), models, costs in zip(shapes, calls, turns, strict=True):
                timed = take_turns(
                    models,
                    rounds=speed.rounds,
                    calls_per_turn=speed.calls,
                    after_turn=lambda name, costs=costs: advance(costs[name]),
                )
                shape = {"batch": batch, "tokens": tokens, "threads": threads}
                for name, entry in latency_metrics(timed, against, **shape).items():
                    found.setdefault(name, []).append(entry)
    return found


def first_float(forms: Sequence[tuple[str, str]]) -> str:
    """Reference model of speedups: the first (name, form) in float, otherwise the first."""
    return next((name for name, form in forms if form == "float"), forms[0][0])
