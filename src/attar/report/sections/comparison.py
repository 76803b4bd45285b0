"""The models an `evaluate` step measured, side by side: quality with its interval, speed, size, cost, and ratios.

Ratios are taken within one evaluation, against its first float model: models that were timed together took turns on the
same machine, so a busy moment hit both sides of the ratio. Where a sweep made a model several times, its *family* is the
mean over the runs, and the interval shown is mean ± one standard deviation (n ≥ 2), which says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from attar.report.reading import VARIANT_MARK, Made, base_name, number, table, variant_of

DEPLOYED = ("openvino", "onnxruntime")
FORM_WORDS = {
    "float": "PyTorch, float32",
    "simulated": "PyTorch, simulated",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
}


@dataclass(frozen=True)
class Quality:
    """One metric: value and 95 % interval; over several runs mean ± standard deviation."""

    value: float
    low: float | None
    high: float | None
    examples: int | None


@dataclass(frozen=True)
class Latency:
    """Milliseconds a forward pass takes."""

    batch: int
    tokens: int
    threads: int | None
    p50_ms: float
    p95_ms: float | None
    speedup: float | None = None
    """How many times faster than the first float model: the median over rounds of paired turns."""
    slowest_speedup: float | None = None
    fastest_speedup: float | None = None
    """Smallest and largest over the rounds."""


@dataclass(frozen=True)
class ModelRow:
    """One measured model; or, with `runs` > 1, the mean of the runs of a sweep."""

    name: str
    form: str
    qualities: Mapping[str, Quality]
    latencies: tuple[Latency, ...] = ()
    size_mib: float | None = None
    num_params: float | None = None
    flops: float | None = None
    peak_memory_mib: float | None = None
    speed_ratio: float | None = None
    """Latency of the first float model over this one's, smallest batch: above 1 is faster."""
    size_ratio: float | None = None
    """Size of the first float model over this one's: above 1 is smaller."""
    runs: int = 1

    @property
    def latency_ms(self) -> float | None:
        """p50 at the smallest batch."""
        return self.latencies[0].p50_ms if self.latencies else None


@dataclass(frozen=True)
class Difference:
    """One paired comparison, as the evaluation worded it."""

    model: str
    against: str
    metric: str
    value: float | None
    within_noise: bool | None
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """Everything measured on one data split."""

    step: str
    data: str
    split: str
    examples: int | None
    metrics: tuple[str, ...]
    """The first is the one that charts and headline use."""
    rows: tuple[ModelRow, ...]
    families: tuple[ModelRow, ...]
    """`rows` with the runs of a sweep averaged; the same rows when nothing was swept."""
    baseline: str
    """The first float model: what every ratio compares with."""
    differences: tuple[Difference, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        return self.metrics[0]

    def family(self, name: str) -> ModelRow | None:
        return next((row for row in self.families if row.name == base_name(name)), None)


def comparisons(made: Sequence[Made]) -> tuple[Comparison, ...]:
    """One comparison per evaluate step of the recipe; the runs of a swept one are merged."""
    swept = {base_name(step.name) for step in made if variant_of(step.name)}
    groups: dict[str, list[Made]] = {}
    for step in made:
        if step.run == "evaluate" and table(step.metrics.get("models")):
            groups.setdefault(base_name(step.name), []).append(step)
    return tuple(_comparison(name, steps, swept) for name, steps in groups.items())


def _comparison(name: str, steps: Sequence[Made], swept: set[str]) -> Comparison:
    rows: dict[str, ModelRow] = {}
    differences: dict[tuple[str, str, str], Difference] = {}
    for step in steps:
        full = _full_names(step, swept)
        for row in _rows_of(step.metrics["models"], full):
            rows.setdefault(row.name, row)
        for difference in _differences(step.metrics.get("differences"), full):
            differences.setdefault(
                (difference.model, difference.against, difference.metric), difference
            )
    families = tuple(_family(runs) for runs in _by_base(rows.values()))
    data = table(steps[0].metrics.get("data"))
    metrics = tuple(dict.fromkeys(metric for row in rows.values() for metric in row.qualities))
    first_float = next((row for row in families if row.form == "float"), families[0])
    return Comparison(
        step=name,
        data=str(data.get("name", "")),
        split=str(data.get("split", "")),
        examples=int(rows_seen) if (rows_seen := number(data.get("rows"))) is not None else None,
        metrics=metrics or ("quality",),
        rows=tuple(rows.values()),
        families=families,
        baseline=first_float.name,
        differences=tuple(differences.values()),
        machine=table(steps[0].metrics.get("machine")),
    )


def _full_names(step: Made, swept: set[str]) -> dict[str, str]:
    """A model named plainly inside `scores@seed=0` is that run's model, if its step was swept too."""
    variant = variant_of(step.name)
    return {
        name: f"{name}{VARIANT_MARK}{variant}"
        if variant and name in swept and not variant_of(name)
        else name
        for name in step.metrics["models"]
    }


def _rows_of(models: Mapping[str, Any], full: Mapping[str, str]) -> list[ModelRow]:
    rows = [_row(full[name], table(figures)) for name, figures in models.items()]
    baseline = next((row for row in rows if row.form == "float"), rows[0])
    return [_with_ratios(row, baseline) for row in rows]


def _row(name: str, figures: Mapping[str, Any]) -> ModelRow:
    qualities = {
        metric: quality
        for metric, content in figures.items()
        if (quality := _quality(content)) is not None
    }
    timed = figures.get("latency") or [figures.get("latency_ms")]
    latencies = [latency for item in timed if (latency := _latency(table(item))) is not None]
    return ModelRow(
        name=name,
        form=str(figures.get("form", "float")),
        qualities=qualities,
        latencies=tuple(sorted(latencies, key=lambda latency: latency.batch)),
        size_mib=number(figures.get("size_mib")),
        num_params=number(figures.get("num_params")),
        flops=number(figures.get("flops")),
        peak_memory_mib=number(figures.get("peak_memory_mib")),
    )


def _quality(content: Any) -> Quality | None:
    if not isinstance(content, Mapping) or (value := number(content.get("value"))) is None:
        return None
    ends = content.get("ci95")
    low, high = (number(end) for end in ends) if isinstance(ends, list | tuple) else (None, None)
    examples = number(content.get("n"))
    return Quality(value, low, high, None if examples is None else int(examples))


def _latency(content: Mapping[str, Any]) -> Latency | None:
    p50, batch, tokens = (number(content.get(name)) for name in ("p50", "batch", "tokens"))
    if p50 is None or batch is None or tokens is None:
        return None
    threads, speedup = number(content.get("threads")), table(content.get("speedup"))
    return Latency(
        batch=int(batch),
        tokens=int(tokens),
        threads=None if threads is None else int(threads),
        p50_ms=p50,
        p95_ms=number(content.get("p95")),
        speedup=number(speedup.get("median")),
        slowest_speedup=number(speedup.get("min")),
        fastest_speedup=number(speedup.get("max")),
    )


def _with_ratios(row: ModelRow, baseline: ModelRow) -> ModelRow:
    paired = row.latencies[0].speedup if row.latencies else None
    return _changed(
        row,
        speed_ratio=paired or _ratio(baseline.latency_ms, row.latency_ms),
        size_ratio=_ratio(baseline.size_mib, row.size_mib),
    )


def _changed(row: ModelRow, **changes: Any) -> ModelRow:
    return ModelRow(**{**row.__dict__, **changes})


def _ratio(before: float | None, after: float | None) -> float | None:
    return before / after if before and after else None


def _by_base(rows: Iterable[ModelRow]) -> list[list[ModelRow]]:
    groups: dict[str, list[ModelRow]] = {}
    for row in rows:
        groups.setdefault(base_name(row.name), []).append(row)
    return list(groups.values())


def _family(runs: Sequence[ModelRow]) -> ModelRow:
    """The runs of one model as one row: means, and mean ± standard deviation for quality."""
    name = base_name(runs[0].name)
    if len(runs) == 1:
        return _changed(runs[0], name=name)
    qualities = {
        metric: _spread([run.qualities[metric] for run in runs if metric in run.qualities])
        for metric in runs[0].qualities
    }
    averaged = {
        figure: _mean([getattr(run, figure) for run in runs])
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
    values = [quality.value for quality in qualities]
    centre, spread = mean(values), stdev(values) if len(values) > 1 else 0.0
    return Quality(centre, centre - spread, centre + spread, qualities[0].examples)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _mean_latency(runs: Sequence[Latency]) -> Latency:
    first = runs[0]
    return Latency(
        batch=first.batch,
        tokens=first.tokens,
        threads=first.threads,
        p50_ms=mean(run.p50_ms for run in runs),
        p95_ms=_mean([run.p95_ms for run in runs]),
        speedup=_mean([run.speedup for run in runs]),
        slowest_speedup=min(
            (run.slowest_speedup for run in runs if run.slowest_speedup), default=None
        ),
        fastest_speedup=max(
            (run.fastest_speedup for run in runs if run.fastest_speedup), default=None
        ),
    )


def _differences(content: Any, full: Mapping[str, str]) -> list[Difference]:
    found = [table(item) for item in content] if isinstance(content, list) else []
    return [
        Difference(
            model=full.get(str(item.get("model")), str(item.get("model"))),
            against=full.get(str(item.get("against")), str(item.get("against"))),
            metric=str(item.get("metric", "")),
            value=number(item.get("value")),
            within_noise=noise if isinstance(noise := item.get("within_noise"), bool) else None,
            sentence=str(item.get("sentence", "")),
        )
        for item in found
    ]
