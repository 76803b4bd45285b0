"""The lines of `history.jsonl`: means over several steps, and the metrics of each evaluation.

A run of thousands of steps is reduced to a few hundred lines. A line is the mean over the steps
since the previous line, so every step is included; steps that are not in a line yet are stored in
checkpoints. Besides the loss and its terms, a line has values that the terms report ("facts").
There are no times, so that equal runs write equal files; `result.json` has the duration of
training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from attar.artifacts import disk_errors_explained
from attar.losses.total import LossValues
from attar.training.saving.state import Place

HISTORY_FILE = "history.jsonl"
TRAINING_LINES = 200
"""Enough for a smooth curve, few enough to plot and to store in every checkpoint."""


def log_step(
    place: Place,
    parts: Sequence[LossValues],
    learning_rate: float,
    grad_norm: float,
    *,
    total_steps: int,
    epoch: float,
) -> None:
    """Record the step just done (`place.step` already counts it); add a line if one is due."""
    terms: dict[str, float] = {}
    facts: dict[str, float] = {}
    for part in parts:
        terms |= {name: terms.get(name, 0) + float(value) for name, value in part.terms.items()}
        facts |= part.facts
    loss = sum(float(part.total.detach()) for part in parts)
    place.since_logged.append(
        {"loss": loss, "grad_norm": grad_norm, "losses": terms, "facts": facts}
    )
    if place.step % max(1, total_steps // TRAINING_LINES) and place.step != total_steps:
        return
    steps, place.since_logged = place.since_logged, []
    place.history.append(
        {
            "step": place.step,
            "epoch": epoch,
            "tokens": place.tokens,
            "loss": fmean(step["loss"] for step in steps),
            "learning_rate": learning_rate,
            "grad_norm": fmean(step["grad_norm"] for step in steps),
            "losses": _means(steps, "losses"),
            **({"facts": _means(steps, "facts")} if facts else {}),
        }
    )


def _means(steps: Sequence[Mapping[str, Any]], group: str) -> dict[str, float]:
    return {name: fmean(step[group][name] for step in steps) for name in steps[-1][group]}


def log_evaluation(place: Place, values: Mapping[str, float], merit: float, epoch: float) -> bool:
    """Record an evaluation.

    Args:
        merit: value by which evaluations are compared; larger is better.

    Returns:
        Whether it is the best so far. Ties go to the lower validation loss: a classifier that is
            right on every row early has usually not trained enough.
    """
    place.evaluated_step = place.step
    place.history.append(
        {
            "step": place.step,
            "epoch": epoch,
            "tokens": place.tokens,
            "validation": dict(values),
        }
    )
    loss = values["loss"]
    best_loss = math.inf if place.best_loss is None else place.best_loss
    if place.best_value is not None and (merit, -loss) <= (place.best_value, -best_loss):
        return False
    place.best_step, place.best_value, place.best_loss = place.step, merit, loss
    return True


def write_history(folder: Path, place: Place) -> None:
    """Write `history.jsonl` into an artifact.

    Raises:
        ResourceError: the disk is full.
    """
    with disk_errors_explained(folder):
        lines = (json.dumps(line, ensure_ascii=False) for line in place.history)
        (folder / HISTORY_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
