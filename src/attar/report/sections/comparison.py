"""Comparison of the models of an `evaluate` step; runs that differ only in the seed form a family.

A family has the mean over its runs, with mean ± one standard deviation as the interval, as noted on
the page. Runs that differ in other settings are shown separately, because comparing them is the
purpose of the sweep.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from attar.numerics.metric_names import LANGUAGE, leading_first, told
from attar.numerics.statistics import spread
from attar.report.reading import (
    VARIANT_MARK,
    Made,
    base_name,
    mean_of,
    number,
    table,
    variant_of,
    whole,
)
from attar.report.sections.measured import (
    Difference,
    Latency,
    ModelRow,
    Quality,
    differences_of,
    rows_of,
)
from attar.report.sections.zero_shot import is_zero_shot

SEED = re.compile(r"([\w.]+\.)?seed=")
"""`seed=0`, or the seed of one step: `student.seed=0`."""


@dataclass(frozen=True)
class Comparison:
    """Everything measured on one data split."""

    step: str
    data: str
    split: str
    examples: int | None
    metrics: tuple[str, ...]
    """Metrics; charts and headline use the first."""
    rows: tuple[ModelRow, ...]
    families: tuple[ModelRow, ...]
    """`rows` with the runs of a sweep averaged."""
    baseline: str
    """The first float model, the reference of all ratios."""
    differences: tuple[Difference, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    flops_tokens: int | None = None
    """Text length for FLOPs."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """Metric → score of the best constant prediction, if known."""

    @property
    def metric(self) -> str:
        return self.metrics[0]

    @property
    def shapes(self) -> tuple[Latency, ...]:
        """Latencies at the smallest batch size, one per length, for the table."""
        timed = next((row.latencies for row in self.families if row.latencies), ())
        smallest = min((each.batch for each in timed), default=None)
        return tuple(each for each in timed if each.batch == smallest)

    @property
    def counted(self) -> str:
        """Number of texts, or of passages for running text; "" if unknown."""
        if not self.examples:
            return ""
        qualities = (row.qualities.get(self.metric) for row in self.rows)
        passages = max((quality.examples or 0 for quality in qualities if quality), default=0)
        texts = f"{self.examples:,} texts"
        return (
            f"{texts} in {passages:,} passages" if passages and self.metric in LANGUAGE else texts
        )

    def family(self, name: str) -> ModelRow | None:
        return next((row for row in self.families if row.name == name), None)

    def is_at_chance(self, row: ModelRow) -> bool:
        """Whether the model's interval contains the score of a constant prediction, or is below
        it."""
        quality, chance = row.qualities.get(self.metric), self.chance.get(self.metric)
        if quality is None or chance is None:
            return False
        return (quality.value if quality.low is None else quality.low) <= chance


def family_name(name: str) -> str:
    """A model's name without the swept seeds.

    Example:
        >>> family_name("student@seed=0"), family_name("int8@seed=1,method=minmax")
        ('student', 'int8@method=minmax')
    """
    settings = [part for part in variant_of(name).split(",") if part and not SEED.match(part)]
    return f"{base_name(name)}{VARIANT_MARK}{','.join(settings)}" if settings else base_name(name)


def comparisons(made: Sequence[Made]) -> tuple[Comparison, ...]:
    """One comparison per evaluate step of the recipe; the runs of a swept one are merged."""
    swept = {base_name(step.name) for step in made if variant_of(step.name)}
    groups: dict[str, list[Made]] = {}
    for step in made:
        if step.run == "evaluate" and step.metrics.get("models") and not is_zero_shot(step):
            groups.setdefault(base_name(step.name), []).append(step)
    return tuple(_comparison(name, steps, swept) for name, steps in groups.items())


def _comparison(name: str, steps: Sequence[Made], swept: set[str]) -> Comparison:
    rows: dict[str, ModelRow] = {}
    differences: dict[tuple[str, str, str], Difference] = {}
    for step in steps:
        full = _full_names(step, swept)
        for row in rows_of(step.metrics["models"], full):
            rows.setdefault(row.name, row)
        for difference in differences_of(step.metrics.get("differences"), full):
            differences.setdefault(
                (difference.model, difference.against, difference.metric), difference
            )
    groups: dict[str, list[ModelRow]] = {}
    for row in rows.values():
        groups.setdefault(family_name(row.name), []).append(row)
    families = tuple(map(_family, groups.values()))
    data = table(steps[0].metrics.get("data"))
    metrics = leading_first(metric for row in rows.values() for metric in row.qualities)
    first_float = next((row for row in families if row.form == "float"), families[0])
    return Comparison(
        step=name,
        data=str(data.get("name", "")),
        split=str(data.get("split", "")),
        examples=whole(data.get("rows")),
        metrics=tuple(metrics) or ("quality",),
        rows=tuple(rows.values()),
        families=families,
        baseline=first_float.name,
        differences=tuple(each for each in differences.values() if each.metric in told(metrics)),
        machine=table(steps[0].metrics.get("machine")),
        flops_tokens=whole(steps[0].metrics.get("flops_tokens")),
        chance={
            metric: score
            for metric, value in table(data.get("chance")).items()
            if (score := number(value)) is not None
        },
    )


def _full_names(step: Made, swept: set[str]) -> dict[str, str]:
    """A model named plainly inside `scores@seed=0` is that run's model, if its step was swept
    too."""
    variant = variant_of(step.name)
    return {
        name: f"{name}{VARIANT_MARK}{variant}"
        if variant and name in swept and not variant_of(name)
        else name
        for name in step.metrics["models"]
    }


def _family(runs: Sequence[ModelRow]) -> ModelRow:
    """Combine the runs of a model: means, and mean ± standard deviation for quality."""
    name = family_name(runs[0].name)
    if len(runs) == 1:
        return replace(runs[0], name=name)
    qualities = {
        metric: _spread([run.qualities[metric] for run in runs if metric in run.qualities])
        for metric in runs[0].qualities
    }
    averaged = {
        figure: mean_of(getattr(run, figure) for run in runs)
        for figure in (
            "size_mib",
            "num_params",
            "flops",
            "peak_memory_mib",
            "speed_ratio",
            "size_ratio",
        )
    }
    timed = zip(*(run.latencies for run in runs), strict=False)
    latencies = tuple(_mean_latency(same_batch) for same_batch in timed)
    return ModelRow(name, runs[0].form, qualities, latencies, runs=len(runs), **averaged)


def _spread(qualities: Sequence[Quality]) -> Quality:
    found = spread([quality.value for quality in qualities])
    reach = found.sd or 0.0
    return Quality(found.mean, found.mean - reach, found.mean + reach, qualities[0].examples)


def _mean_latency(runs: Sequence[Latency]) -> Latency:
    first = runs[0]
    return Latency(
        batch=first.batch,
        tokens=first.tokens,
        threads=first.threads,
        p50_ms=mean(run.p50_ms for run in runs),
        p95_ms=mean_of(run.p95_ms for run in runs),
        speedup=mean_of(run.speedup for run in runs),
        slowest_speedup=min(
            (run.slowest_speedup for run in runs if run.slowest_speedup), default=None
        ),
        fastest_speedup=max(
            (run.fastest_speedup for run in runs if run.fastest_speedup), default=None
        ),
    )
