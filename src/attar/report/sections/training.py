"""Training curves: the loss at every logged step, its terms, and validation metrics.

The logged loss is noisy, so it is drawn faint, with a running mean over a twentieth of the points
in front. Runs of a sweep share one picture. If there are more than a few hundred points, neighbours
are averaged, because a curve cannot show more and the page stays small; history.jsonl has all
points. Runs that failed, compared with other seeds, are listed and drawn dashed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from attar.numerics.failed_runs import failed_runs
from attar.progress import human_seconds
from attar.report.quantities import count_text, number_text
from attar.report.reading import Made, base_name, number, table, variant_of, without_a_twin
from attar.report.sections.seed_comparisons import method_and_seed

MOST_POINTS = 300
"""Maximum number of points per curve, about one per two pixels."""
SMOOTHED_SHARE = 0.05
"""Width of the running mean, as a share of the curve."""
LEAST_TO_SMOOTH = 20
"""Curves with fewer points are not smoothed."""


@dataclass(frozen=True)
class Curve:
    """One line: optimizer steps against values."""

    name: str
    points: tuple[tuple[float, float], ...]
    is_failed: bool = False
    """Whether the run failed; see `failed_of`."""


@dataclass(frozen=True)
class Training:
    """One training step of the recipe; `runs` has one name per run of a sweep."""

    name: str
    runs: tuple[str, ...]
    facts: tuple[tuple[str, Any], ...]
    """Named figures of the first run, in reading order."""
    loss: tuple[Curve, ...]
    smooth_loss: tuple[Curve, ...]
    """Curves in front: the running means, and for a single run its validation loss."""
    parts: tuple[Curve, ...]
    """Terms of the loss; empty if there is only one."""
    validation: Mapping[str, tuple[Curve, ...]]
    """Metric → one curve per run. For a single run, a constant metric is in `facts` instead."""
    failed: tuple[str, ...] = ()
    """Varied settings of runs that failed, by their loss compared with other seeds."""


FACTS = (
    ("objective", "objective"),
    ("steps", "optimizer steps"),
    ("epochs", "epochs"),
    ("best_step", "best step"),
    ("precision", "precision"),
    ("examples_per_s", "examples per second"),
    ("tokens_per_s", "tokens per second"),
    ("matmul_share", "share of the time spent in matrix products"),
)


def trainings(made: Sequence[Made]) -> tuple[Training, ...]:
    """Every step that trained, quantization-aware training included, in the recipe's order."""
    groups: dict[str, list[Made]] = {}
    for step in made:
        if step.run == "train" or step.history:
            groups.setdefault(base_name(step.name), []).append(step)
    caches = {base_name(step.name): step.metrics for step in made if step.run == "cache"}
    return tuple(_training(name, runs, caches) for name, runs in groups.items())


def failed_of(runs: Sequence[Made]) -> tuple[str, ...]:
    """Names of training runs that failed compared with other seeds of the same setting; see
    `numerics.failed_runs`."""
    groups: dict[str, dict[str, list[float | None]]] = {}
    for run in runs:
        method, seed = method_and_seed(run.name)
        losses = [number(line["loss"]) for line in run.history if "loss" in line]
        if seed and losses:
            groups.setdefault(method, {})[run.name] = losses
    return tuple(name for curves in groups.values() for name in failed_runs(curves))


def _training(name: str, runs: Sequence[Made], caches: Mapping[str, Mapping[str, Any]]) -> Training:
    first, failed = runs[0], failed_of(runs)
    trained = first.metrics if first.run == "train" else table(first.metrics.get("training"))
    loss = tuple(
        _curve(run, (_point(line, line.get("loss")) for line in run.history), failed)
        for run in runs
    )
    kinds = sorted(
        {kind for run in runs for line in run.history for kind in table(line.get("losses"))}
    )
    validated = {
        metric: None
        for run in runs
        for line in run.history
        for metric in table(line.get("validation"))
    }
    validation = without_a_twin({metric: _validation(runs, metric, failed) for metric in validated})
    flat = {
        metric: values.pop()
        for metric, curves in validation.items()
        if len(runs) == 1 and len(values := {y for curve in curves for _, y in curve.points}) == 1
    }
    drawn = {m: curves for m, curves in validation.items() if m not in flat}
    lines = tuple(smoothed(curve) for curve in loss if curve.points)
    if len(lines) == 1 and (held_out := drawn.get("loss", drawn.get("nll"))):
        drawn = {m: curves for m, curves in drawn.items() if curves is not held_out}
        lines = _both(lines[0], held_out[0], kinds)
    return Training(
        name=name,
        runs=tuple(run.name for run in runs),
        facts=(
            *_facts(trained, loss[0]),
            *((f"validation {metric}", value) for metric, value in flat.items()),
            *_distribution_facts(caches.get(str(first.settings.get("teacher")), {})),
        ),
        loss=tuple(curve for curve in loss if curve.points),
        smooth_loss=lines,
        parts=_parts(first, kinds) if len(kinds) > 1 else (),
        validation=drawn,
        failed=tuple(variant_of(run) or run for run in failed),
    )


def _both(training: Curve, validation: Curve, kinds: Sequence[str]) -> tuple[Curve, Curve]:
    """Training and validation curves for one picture, with the kinds of their losses if training
    does not minimize the loss on labels."""
    is_other = bool(kinds) and list(kinds) != ["cross_entropy"]
    return (
        replace(training, name=f"training ({' + '.join(kinds)})" if is_other else "training"),
        replace(validation, name="validation (cross_entropy)" if is_other else "validation"),
    )


def _facts(trained: Mapping[str, Any], loss: Curve) -> tuple[tuple[str, Any], ...]:
    known = [(words, trained[fact]) for fact, words in FACTS if trained.get(fact) is not None]
    if (flops := number(trained.get("flops"))) is not None:
        known.append(("floating-point operations of training", count_text(flops)))
    if (seconds := number(trained.get("train_seconds"))) is not None:
        known.append(("training time", human_seconds(seconds)))
    if loss.points:
        heights = [y for _, y in smoothed(loss).points]
        known.append(("loss", f"{number_text(heights[0])} → {number_text(heights[-1])}"))
    return tuple(known)


def _distribution_facts(cache: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Description of a cache with sparse teacher distributions."""
    kept = table(cache.get("distribution"))
    if not kept:
        return ()
    draws = kept.get("tail_draws")
    tail = f"{draws} ids drawn from the rest" if draws else "one bucket for the rest"
    means = "estimated without bias" if draws else "a lower bound, not the KL"
    return (
        ("the teacher's distributions", f"{kept.get('exact')} ids exactly, {tail}"),
        ("losses against them", means),
        ("bytes of the cache per token", cache.get("bytes_per_token")),
        ("share of the teacher's mass on the exact ids", cache.get("mass_exact")),
    )


def _parts(run: Made, kinds: Sequence[str]) -> tuple[Curve, ...]:
    curves = []
    for kind in kinds:
        points = (_point(line, table(line.get("losses")).get(kind)) for line in run.history)
        curves.append(smoothed(Curve(kind, thinned([point for point in points if point]))))
    return tuple(curve for curve in curves if curve.points)


def _validation(runs: Sequence[Made], metric: str, failed: Collection[str]) -> tuple[Curve, ...]:
    curves = [
        _curve(
            run,
            (_point(line, table(line.get("validation")).get(metric)) for line in run.history),
            failed,
        )
        for run in runs
    ]
    return tuple(curve for curve in curves if curve.points)


def _curve(
    run: Made, points: Iterable[tuple[float, float] | None], failed: Collection[str]
) -> Curve:
    found = [point for point in points if point is not None]
    name, is_failed = variant_of(run.name) or run.name, run.name in failed
    return Curve(f"{name} (failed)" if is_failed else name, thinned(found), is_failed)


def _point(line: Mapping[str, Any], value: Any) -> tuple[float, float] | None:
    step, height = number(line.get("step")), number(value)
    return None if step is None or height is None else (step, height)


def thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Reduce to at most `MOST_POINTS` points by averaging groups of neighbours.

    Example:
        >>> len(thinned([(float(i), 1.0) for i in range(1000)])) <= MOST_POINTS
        True
    """
    group = -(-len(points) // MOST_POINTS) or 1
    chunks = (points[start : start + group] for start in range(0, len(points), group))
    return tuple((mean(x for x, _ in chunk), mean(y for _, y in chunk)) for chunk in chunks)


def smoothed(curve: Curve) -> Curve:
    """Running mean with windows truncated at the ends; short curves are unchanged."""
    count = len(curve.points)
    if count < LEAST_TO_SMOOTH:
        return curve
    reach = max(round(count * SMOOTHED_SHARE / 2), 1)
    heights = [y for _, y in curve.points]
    means = (mean(heights[max(i - reach, 0) : i + reach + 1]) for i in range(count))
    return replace(
        curve, points=tuple((x, y) for (x, _), y in zip(curve.points, means, strict=True))
    )
