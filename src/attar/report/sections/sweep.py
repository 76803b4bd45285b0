"""The runs of a sweep, with mean, standard deviation, best value and number of runs.

Runs are compared by the results of an evaluation, or by validation metrics of training if there is
none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from attar.numerics.metric_names import LOWER_IS_BETTER
from attar.numerics.statistics import Spread, spread
from attar.report.reading import (
    VARIANT_MARK,
    Made,
    base_name,
    number,
    table,
    variant_of,
    without_a_twin,
)
from attar.report.sections.comparison import Comparison
from attar.report.sections.lineage import ancestors
from attar.report.sections.training import failed_of


@dataclass(frozen=True)
class Sweep:
    """One step with several runs."""

    name: str
    measured_by: str
    """The evaluate step, or "validation"."""
    runs: tuple[tuple[str, Mapping[str, float]], ...]
    """Varied settings → metric → value."""
    spreads: Mapping[str, Spread]
    """Statistics over all runs, including failed ones."""
    best: Mapping[str, float]
    failed: tuple[str, ...] = ()
    """Varied settings of runs whose training failed, or that descend from such a run."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.spreads)


def sweeps(made: Sequence[Made], compared: Sequence[Comparison]) -> tuple[Sweep, ...]:
    """Every step with several runs that has metrics."""
    found: dict[str, Sweep] = {}
    for comparison in compared:
        runs = [
            (row.name, {metric: quality.value for metric, quality in row.qualities.items()})
            for row in comparison.rows
            if variant_of(row.name)
        ]
        for name, sweep in _grouped(runs, comparison.step).items():
            found.setdefault(name, sweep)
    trained = [(step.name, _validation(step)) for step in made if variant_of(step.name)]
    for name, sweep in _grouped([run for run in trained if run[1]], "validation").items():
        found.setdefault(name, sweep)
    failed = failed_of([step for step in made if step.run == "train"])
    return tuple(
        replace(sweep, failed=_made_of(sweep, set(failed), made)) for sweep in found.values()
    )


def _made_of(sweep: Sweep, failed: set[str], made: Sequence[Made]) -> tuple[str, ...]:
    """Runs of a sweep that failed, or whose model descends from a failed run."""
    return tuple(
        variant
        for variant, _ in sweep.runs
        if any(s.name in failed for s in ancestors(f"{sweep.name}{VARIANT_MARK}{variant}", made))
    )


def _validation(step: Made) -> dict[str, float]:
    figures = table(step.metrics.get("validation")) if step.run == "train" else {}
    known = ((metric, number(value)) for metric, value in figures.items())
    return without_a_twin({metric: value for metric, value in known if value is not None})


def _grouped(runs: Sequence[tuple[str, Mapping[str, float]]], measured_by: str) -> dict[str, Sweep]:
    groups: dict[str, list[tuple[str, Mapping[str, float]]]] = {}
    for name, figures in runs:
        groups.setdefault(base_name(name), []).append((variant_of(name), figures))
    return {
        name: Sweep(name, measured_by, tuple(group), *_spreads([figures for _, figures in group]))
        for name, group in groups.items()
    }


def _spreads(
    figures: Sequence[Mapping[str, float]],
) -> tuple[dict[str, Spread], dict[str, float]]:
    """Metric → statistics over the runs, and metric → best value."""
    names = dict.fromkeys(metric for run in figures for metric in run)
    values = {metric: [run[metric] for run in figures if metric in run] for metric in names}
    best = {m: (min if m in LOWER_IS_BETTER else max)(found) for m, found in values.items()}
    return {metric: spread(found) for metric, found in values.items()}, best
