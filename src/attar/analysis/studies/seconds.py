"""`seconds`: how long a method takes to find the ranges of all activations.

    transform     what it moves between layers first: the passes that show what they give, the
                  choice of scales and shifts, and the proof that nothing else changed
    calibration   the float pass that every method needs, with its statistics
    search        what the method does with them: quantized passes, or a search in stored values

Left out of the clock: the rounding of weights, which is to nearest here whatever the method, and
what is learned by gradient: the table is about calibration. Methods take turns, round by round, so
that a busy moment of the machine hits all of them alike; the median of the rounds counts.
Source: Outlier Suppression (Wei et al. 2022), table 15.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from attar.analysis.config import SecondsStep
from attar.analysis.quantizing import prepared, settings_of
from attar.analysis.study import Finding
from attar.analysis.subject import Subject, open_subject
from attar.cores import usable_cores
from attar.quantization.solve import problem_of
from attar.quantization.weights.nearest import quantize_weights
from attar.step import StepContext


def seconds(config: SecondsStep, context: StepContext) -> Finding:
    """Seconds of each method's transform, calibration and search."""
    subject = open_subject(config, context, shows_probabilities=True)
    forward = [_forward_seconds(subject) for _ in range(config.rounds + 1)][1:]  # the first warms
    timed: dict[str, list[tuple[float, float, float]]] = {name: [] for name in config.methods}
    for _ in range(config.rounds):
        for name in config.methods:
            ready = prepared(settings_of(config, name, config.bits), subject, context)
            weights = quantize_weights(ready.loaded.model, ready.plan.weight)
            problem = problem_of(ready, weights)
            started = time.perf_counter()
            ready.method.ranges(problem)
            search = time.perf_counter() - started
            timed[name].append((ready.transform_seconds, ready.calibration.seconds, search))
    float_pass = median(forward)
    rows = []
    for name, rounds in timed.items():
        transform, calibration, search = (median(part) for part in zip(*rounds, strict=True))
        total = transform + calibration + search
        rows.append(
            {
                "method": name,
                "transform_seconds": transform,
                "calibration_seconds": calibration,
                "search_seconds": search,
                "seconds": total,
                "float_passes": total / float_pass,
            }
        )
    rows.sort(key=lambda row: row["seconds"])
    facts = {
        "bits": config.bits,
        "rounds": config.rounds,
        "examples": subject.num_examples,
        "tokens": subject.num_tokens,
        "float_pass_seconds": float_pass,
        "threads": torch.get_num_threads(),
        "cores": usable_cores(),
    }
    return Finding(facts, {"rows": rows}, {"methods": {row["method"]: row for row in rows}})


def _forward_seconds(subject: Subject) -> float:
    """Of the float model over the texts, nothing watched."""
    started = time.perf_counter()
    subject.watch({}, "float pass")
    return time.perf_counter() - started
