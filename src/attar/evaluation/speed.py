"""How long one forward pass takes, measured so that models can be compared on a noisy machine.

Shared cores slow down and speed up by tens of percent within seconds. So models take turns,
A B C A B C …, and are compared *within* a round:

    speedup of B in round r = median ms of the float model / median ms of B,  both in round r
    reported: the median over rounds, with the smallest and the largest

Each turn opens with one call that is not counted: it brings the model back into the caches, and
lets the worker threads of the model before, which spin for a moment after their last call, fall
asleep. All runtimes get the same number of threads. Where a ratio lies on both sides of 1 over the
rounds, the machine was too busy to tell, or the two are equally fast: readers of the result say so.
A call is `Form.logits` on a ready batch: tokenizing is the same for all and left out.
Shapes: R rounds, C calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from attar.cores import torch_threads
from attar.evaluation.config import Speed

Call = Callable[[], object]
NS_PER_MS = 1e6
MS_PER_S = 1e3


def take_turns(
    calls: Mapping[str, Call],
    *,
    rounds: int,
    calls_per_turn: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    after_turn: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Milliseconds of every call (R, C), in rounds of turns after one whole round not counted.

    Args:
        clock: nanoseconds; a test passes its own.
    """
    for call in calls.values():
        call()
    times = {name: np.empty((rounds, calls_per_turn)) for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            call()
            for i in range(calls_per_turn):
                start = clock()
                call()
                times[name][turn, i] = (clock() - start) / NS_PER_MS
            after_turn()
    return times


def latency_metrics(
    timed: Mapping[str, np.ndarray], against: str, *, batch: int, tokens: int, threads: int
) -> dict[str, dict[str, Any]]:
    """What a result says about latency: p50, p95 and their ratio (how evenly the machine worked),
    texts a second, the median of each round (to pair any two models by), and the speedup over one
    of the models."""
    metrics: dict[str, dict[str, Any]] = {}
    of_rounds = {name: np.median(milliseconds, axis=1) for name, milliseconds in timed.items()}
    for name, milliseconds in timed.items():
        ratios = of_rounds[against] / of_rounds[name]
        metrics[name] = {
            "p50": float(np.percentile(milliseconds, 50)),
            "p95": float(np.percentile(milliseconds, 95)),
            "batch": batch,
            "tokens": tokens,
            "threads": threads,
            "p95_over_p50": float(
                np.percentile(milliseconds, 95) / np.percentile(milliseconds, 50)
            ),
            "texts_per_s": batch * MS_PER_S / float(np.percentile(milliseconds, 50)),
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
    after_turn: Callable[[], None] = lambda: None,
) -> dict[str, list[dict[str, Any]]]:
    """Model → its latency at each length and batch size.

    Args:
        lengths: tokens of a text.
        against: the model speedups are told against.
        calls_for: batch size, tokens → model → a forward pass on such a batch.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    with torch_threads(threads):
        for tokens, batch in product(lengths, speed.batch_sizes):
            timed = take_turns(
                calls_for(batch, tokens),
                rounds=speed.rounds,
                calls_per_turn=speed.calls,
                after_turn=after_turn,
            )
            metrics = latency_metrics(timed, against, batch=batch, tokens=tokens, threads=threads)
            for name, entry in metrics.items():
                found.setdefault(name, []).append(entry)
    return found


def first_float(forms: Sequence[tuple[str, str]]) -> str:
    """The model speedups are told against: the first (name, form) in float, else the first."""
    return next((name for name, form in forms if form == "float"), forms[0][0])
