"""The step `extrapolate`: fits scaling laws to validation losses and extrapolates them.

    L(C) = A · C^(−α) + L∞          fitted to (FLOPs so far, validation nll) of each evaluation

Reads `history.jsonl` and `result.json` of train steps; no model is loaded. FLOPs are those of the
whole run, including a teacher's forward passes, spread evenly over its tokens. The extrapolation to
T tokens is at T times this rate.

    extrapolation.json    points of each law, and its curve with a confidence band, for the report
    metrics               constants and extrapolated losses with 95 % intervals; with several laws,
                          each compared with the first (`recovery`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attar.artifacts import write_json
from attar.errors import DataError, UsageError
from attar.evaluation.config import LEAST_POINTS, ExtrapolateStep, PowerLawFit
from attar.evaluation.recovery import Curve, Method, compared_with_the_first, ends_of, read_curve
from attar.numerics.power_law import Fit, fit_power_law
from attar.seeds import derive_seed
from attar.step import StepContext

EXTRAPOLATION_FILE = "extrapolation.json"
FAR = 1000
"""Extrapolation by more than this factor beyond the last point is meaningless."""
CURVE_POINTS = 60
SAME_RATE = 0.05
"""Maximum relative difference between the FLOPs per token of two seeds. Where a student samples
texts, their lengths differ: seeds of `minillm` by 1 %."""


def extrapolate(config: ExtrapolateStep, context: StepContext) -> dict[str, Any]:
    """Fit each law and extrapolate it.

    Raises:
        UsageError: a run did not train a language model, or the runs of one law differ in their
            FLOPs per token.
        DataError: too few evaluations, or losses that do not follow a power law.
    """
    seed = derive_seed(context.seed if config.seed is None else config.seed, "extrapolate")
    laws: dict[str, Any] = {}
    drawn: dict[str, Any] = {}
    methods: dict[str, Method] = {}
    for name, words in config.groups.items():
        context.stop_if_asked("an extrapolation")
        curves = [read_curve(context.inputs[word], word) for word in words]
        fit = fit_curves(curves, config.fit, seed, name)
        methods[name] = Method(curves, fit)
        budget = next(iter(methods.values())).curves[0].flops[-1]
        laws[name] = _law(fit, curves, config, words, budget)
        drawn[name] = _drawn(fit, curves, config)
        for note in laws[name]["notes"]:
            context.progress.warn(f"{context.name}: {name}: {note}")
    teacher = None
    if config.teacher is not None:
        teacher = read_curve(context.inputs[config.teacher], config.teacher)
    recovery = compared_with_the_first(methods, teacher, config.fit.bootstrap, seed)
    for name, measured in recovery.measured.items():
        drawn[name]["measured"] = measured
    write_json(context.folder / EXTRAPOLATION_FILE, drawn)
    return {"models": laws, "recovery": recovery.metrics}


def fit_curves(curves: Sequence[Curve], config: PowerLawFit, seed: int, name: str) -> Fit:
    """Fit one law to runs that differ only in their seed.

    Raises:
        UsageError: the runs differ in their FLOPs per token.
        DataError: see `fit_power_law`.
    """
    rates = [curve.flops_per_token for curve in curves]
    if max(rates) > (1 + SAME_RATE) * min(rates):
        raise UsageError(
            f"{name}: a token costs {min(rates):.4g} to {max(rates):.4g} FLOPs, so these runs have "
            "different settings; fit a separate law to each"
        )
    kept = [curve.since(config.from_share) for curve in curves]
    fewest = min(len(curve.tokens) for curve in kept)
    if fewest < LEAST_POINTS:
        raise DataError(
            f"{name}: {fewest} evaluations from {config.from_share:.0%} of the tokens on, and a "
            f"power law needs {LEAST_POINTS}; raise `evaluations` of the train step, or lower "
            "fit.from_share"
        )
    try:
        return fit_power_law(
            [(curve.flops, curve.losses) for curve in kept], bootstrap=config.bootstrap, seed=seed
        )
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _law(
    fit: Fit, curves: Sequence[Curve], config: ExtrapolateStep, words: Sequence[str], budget: float
) -> dict[str, Any]:
    """Metrics of one law.

    Args:
        budget: FLOPs of the first run of the first law.
    """
    rate, last = curves[0].flops_per_token, max(max(curve.tokens) for curve in curves)
    read_offs = [
        {
            "tokens": tokens,
            "flops": tokens * rate,
            **ends_of(fit.at(tokens * rate)),
            "times_beyond": tokens / last,
        }
        for tokens in config.read_off_tokens
    ]
    return {
        "runs": list(words),
        "points": fit.points,
        "left_out": sum(len(curve.tokens) for curve in curves) - fit.points,
        "last_tokens": last,
        "flops_per_token": rate,
        "A": ends_of(fit.scale),
        "alpha": ends_of(fit.alpha),
        "floor": ends_of(fit.floor),
        "floor_identified": fit.is_identified,
        "rms": fit.rms,
        "read_offs": read_offs,
        "at_budgets": [
            {
                "times": times,
                "tokens": times * budget / rate,
                "flops": times * budget,
                **ends_of(fit.at(times * budget)),
            }
            for times in config.read_off_budgets
        ],
        "notes": _notes(fit, last, config.read_off_tokens),
    }


def _notes(fit: Fit, last: float, read_off_tokens: Sequence[float]) -> list[str]:
    notes: list[str] = []
    if not fit.is_identified:
        notes.append(
            f"L∞ is not identified: these {fit.points} points fit values from "
            f"{max(fit.floor.low, 0.0):.3g} to {fit.floor.high:.3g} about equally well; use more "
            "evaluations over a longer run"
        )
    farthest = max(read_off_tokens)
    if farthest > FAR * last:
        notes.append(
            f"{farthest:.3g} tokens are {farthest / last:.2g} times beyond the last point, "
            f"{last:.3g}: treat this value as an illustration of the fit, not as a prediction"
        )
    return notes


def _drawn(fit: Fit, curves: Sequence[Curve], config: ExtrapolateStep) -> Mapping[str, Any]:
    """Points, and the curve up to the largest budget, at most `FAR` times the last point."""
    rate, last = curves[0].flops_per_token, max(max(curve.tokens) for curve in curves)
    kept = [curve.since(config.fit.from_share) for curve in curves]
    first = min(curve.tokens[0] for curve in kept if curve.tokens)
    end = max(last, min(max(config.read_off_tokens), FAR * last))
    at = np.geomspace(first, end, CURVE_POINTS).tolist()
    return {
        "points": [
            list(point) for curve in kept for point in zip(curve.tokens, curve.losses, strict=True)
        ],
        "curve": [{"tokens": tokens, **ends_of(fit.at(tokens * rate))} for tokens in at],
    }
