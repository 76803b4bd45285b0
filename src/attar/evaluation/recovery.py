"""Compares training methods: loss against tokens and FLOPs, crossovers, and gap recovery.

Gap recovery is the share of the gap between the first method and a teacher that a method closes.

    band of several seeds      bootstrap over seeds, the same resamples for all methods
    band of one run            bootstrap of its law, over blocks of neighbouring evaluations

FLOPs are those of training (`training.work`). They include a teacher's forward passes, also those
for a cache, but not preparation that is shared by any number of students. Left out: the sampling
error of the validation text, which all evaluations share; `evaluate` has intervals over passages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from attar.artifacts import read_result
from attar.errors import ArtifactError, UsageError
from attar.numerics.power_law import Fit
from attar.numerics.recovery import Floats, crossing, interpolated, recovered, seed_weights
from attar.numerics.statistics import LEVEL, Interval
from attar.training.saving.history import HISTORY_FILE

LOSS = "nll"


@dataclass(frozen=True)
class Curve:
    tokens: tuple[float, ...]
    losses: tuple[float, ...]
    total_tokens: int
    flops_per_token: float
    validation_rows: int = 0

    def since(self, share: float) -> Curve:
        """Drop the evaluations before this share of the run's tokens."""
        kept = [i for i, read in enumerate(self.tokens) if read >= share * self.total_tokens]
        tokens, losses = (tuple(each[i] for i in kept) for each in (self.tokens, self.losses))
        return replace(self, tokens=tokens, losses=losses)

    def until(self, tokens: float) -> Curve:
        """Keep the evaluations up to `tokens`, as if training had stopped there."""
        kept = sum(read <= tokens for read in self.tokens)
        last = int(min(tokens, self.total_tokens))
        return replace(
            self, tokens=self.tokens[:kept], losses=self.losses[:kept], total_tokens=last
        )

    @property
    def flops(self) -> list[float]:
        return [self.flops_per_token * tokens for tokens in self.tokens]


def read_curve(folder: Path, name: str) -> Curve:
    """Read the validation losses of a train step.

    Raises:
        UsageError: the step has no validation loss in nats per token.
        ArtifactError: its history file is damaged.
    """
    metrics = read_result(folder).metrics
    file = folder / HISTORY_FILE
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if "validation" in line]
        if not all(LOSS in line["validation"] for line in found):
            raise UsageError(
                f"{name} was trained for {metrics['objective']}, whose validation has no {LOSS}; "
                "name train steps of causal language models"
            )
        tokens, losses = zip(
            *((line["tokens"], line["validation"][LOSS]) for line in found), strict=True
        )
        rate = metrics["flops"] / metrics["tokens"]
        rows = int(metrics["data"]["validation_rows"])
    except (OSError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ArtifactError(
            f"{file} cannot be read ({error!r}); remove {folder} and run again"
        ) from error
    return Curve(tokens, losses, metrics["tokens"], rate, rows)


@dataclass(frozen=True)
class Method:
    """Runs that differ only in their seed, with the law fitted to them."""

    curves: Sequence[Curve]
    fit: Fit

    @property
    def budgets(self) -> Floats:
        """FLOPs of the evaluations that all runs have."""
        runs = [curve.flops for curve in self.curves]
        first, last = max(run[0] for run in runs), min(run[-1] for run in runs)
        return np.array([flops for flops in runs[0] if first <= flops <= last])

    def losses(self, at: Floats, weights: Floats, resamples: int) -> Floats:
        """Losses at these budgets: the first row as measured, then one row per resample."""
        runs = np.array([interpolated(curve.flops, curve.losses, at) for curve in self.curves])
        if len(runs) > 1:
            return weights @ runs
        laws = self.fit.resampled[:resamples]
        moved = [[law(flops) - self.fit.law(flops) for flops in at] for law in laws]
        return np.concatenate([runs, runs + np.array(moved)])


@dataclass(frozen=True)
class Recovery:
    metrics: dict[str, Any]
    measured: Mapping[str, list[dict[str, float]]]
    """Method → its evaluations with their confidence band."""


def compared_with_the_first(
    methods: Mapping[str, Method], teacher: Curve | None, resamples: int, seed: int
) -> Recovery:
    """Compare every method with the first one.

    Raises:
        UsageError: the teacher was evaluated on different text.
    """
    first = next(iter(methods.values()))
    if teacher is not None and teacher.validation_rows != first.curves[0].validation_rows:
        raise UsageError(
            f"the teacher was validated on {teacher.validation_rows} rows and the first model on "
            f"{first.curves[0].validation_rows}, so their losses are not comparable; use the same "
            "validation texts for both, or remove teacher"
        )
    weights = {
        seeds: seed_weights(seeds, resamples, seed)
        for seeds in {len(method.curves) for method in methods.values()}
    }

    def losses(method: Method, at: Floats) -> Floats:
        return method.losses(at, weights[len(method.curves)], resamples)

    against = losses(first, first.budgets[-1:])[:, 0]
    found: dict[str, Any] = {}
    measured: dict[str, list[dict[str, float]]] = {}
    for name, method in methods.items():
        at = method.budgets
        values = losses(method, at)
        measured[name] = _measured(at, values, method.curves[0].flops_per_token)
        found[name] = {**measured[name][-1], "crossing": None, "recovered": None}
        if method is first:
            continue
        common = np.unique(np.concatenate([first.budgets, at]))
        low, high = max(first.budgets[0], at[0]), min(first.budgets[-1], at[-1])
        common = common[(common >= low) & (common <= high)]
        if len(common):
            ahead = losses(first, common) - losses(method, common)
            found[name]["crossing"] = asdict(crossing(common, ahead))
        if teacher is not None and teacher.losses[-1] < against[0]:
            closed = recovered(against, values[:, -1], teacher.losses[-1])
            found[name]["recovered"] = ends_of(closed)
    last = None if teacher is None else teacher.losses[-1]
    return Recovery({"against": next(iter(methods)), "teacher": last, "methods": found}, measured)


def ends_of(found: Interval) -> dict[str, float]:
    """A value and the ends of its interval, as this step stores them."""
    return {"value": found.value, "low": found.low, "high": found.high}


def _measured(at: Floats, values: Floats, rate: float) -> list[dict[str, float]]:
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    columns = {"tokens": at / rate, "flops": at, "value": values[0], "low": low, "high": high}
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(at))]
