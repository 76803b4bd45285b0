"""Results of an evaluation for each model, as records, with ratios to the first float model.

Ratios are computed within one evaluation: its models were timed in turns on the same machine, so
other load affected both. The ratio is the median over paired rounds if available, otherwise the
ratio of the two p50.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from attar.report.quantities import compared_text, speed_text, undecided
from attar.report.reading import ends_of, number, numbers, table, tables, whole

DEPLOYED = ("openvino", "onnxruntime")
FORM_WORDS = {
    "float": "PyTorch, float32",
    "simulated": "PyTorch, simulated",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
}


@dataclass(frozen=True)
class Quality:
    """One metric with its 95 % interval; for several runs, mean ± standard deviation."""

    value: float
    low: float | None
    high: float | None
    examples: int | None


@dataclass(frozen=True)
class Latency:
    """Latency of a forward pass in milliseconds."""

    batch: int
    tokens: int
    threads: int | None
    p50_ms: float
    p95_ms: float | None
    speedup: float | None = None
    """Speedup over the first float model: the median over paired rounds."""
    slowest_speedup: float | None = None
    fastest_speedup: float | None = None
    """Smallest and largest over the rounds."""

    @property
    def undecided(self) -> str:
        """Why no ratio to the first float model is given; "" if there is one."""
        return undecided(self.slowest_speedup, self.fastest_speedup)

    @property
    def texts_per_s(self) -> float:
        return 1000 * self.batch / self.p50_ms


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
    """Latency of the first float model divided by this model's; above 1 is faster."""
    size_ratio: float | None = None
    """Size of the first float model divided by this model's; above 1 is smaller."""
    runs: int = 1

    @property
    def latency_ms(self) -> float | None:
        """p50 at the smallest batch size and the first length."""
        return self.latencies[0].p50_ms if self.latencies else None

    @property
    def speed(self) -> str:
        """Speed relative to the first float model, in words; "" if not timed."""
        timed = self.latencies[0] if self.latencies else None
        ends = (timed.slowest_speedup, timed.fastest_speedup) if timed else (None, None)
        return speed_text(self.speed_ratio, *ends)

    @property
    def size(self) -> str:
        """Size relative to the first float model, in words; "" if unknown."""
        ratio = self.size_ratio
        return "" if ratio is None else compared_text(ratio, "smaller", "larger", "the same size")

    @property
    def most_at_once(self) -> Latency | None:
        """Latency at the largest batch size and the same length; None if only one size was
        timed."""
        alike = [each for each in self.latencies if each.tokens == self.latencies[0].tokens]
        return alike[-1] if len(alike) > 1 else None

    def timed(self, shape: Latency) -> Latency | None:
        """The latency of a batch of the same shape."""
        alike = (s for s in self.latencies if (s.batch, s.tokens) == (shape.batch, shape.tokens))
        return next(alike, None)


@dataclass(frozen=True)
class Difference:
    """One paired comparison, with the sentence of the evaluation."""

    model: str
    against: str
    metric: str
    value: float | None
    within_noise: bool | None
    sentence: str
    low: float | None = None
    high: float | None = None
    """Of the 95 % interval."""
    count: int | None = None
    """Number of compared rows."""

    @property
    def no_difference_on(self) -> int | None:
        """Number of compared rows, if none differs."""
        return self.count if self.value == self.low == self.high == 0 else None


def rows_of(models: Mapping[str, Any], full: Mapping[str, str]) -> list[ModelRow]:
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
        **numbers(figures, "size_mib", "num_params", "flops", "peak_memory_mib"),
    )


def _quality(content: Any) -> Quality | None:
    if not isinstance(content, Mapping) or (value := number(content.get("value"))) is None:
        return None
    return Quality(value, *ends_of(content.get("ci95")), whole(content.get("n")))


def _latency(content: Mapping[str, Any]) -> Latency | None:
    p50, batch, tokens = (number(content.get(name)) for name in ("p50", "batch", "tokens"))
    if p50 is None or batch is None or tokens is None:
        return None
    speedup = table(content.get("speedup"))
    return Latency(
        batch=int(batch),
        tokens=int(tokens),
        threads=whole(content.get("threads")),
        p50_ms=p50,
        p95_ms=number(content.get("p95")),
        speedup=number(speedup.get("median")),
        slowest_speedup=number(speedup.get("min")),
        fastest_speedup=number(speedup.get("max")),
    )


def _with_ratios(row: ModelRow, baseline: ModelRow) -> ModelRow:
    paired = row.latencies[0].speedup if row.latencies else None
    return replace(
        row,
        speed_ratio=paired or _ratio(baseline.latency_ms, row.latency_ms),
        size_ratio=_ratio(baseline.size_mib, row.size_mib),
    )


def _ratio(before: float | None, after: float | None) -> float | None:
    return before / after if before and after else None


def differences_of(content: Any, full: Mapping[str, str]) -> list[Difference]:
    return [
        Difference(
            model=full.get(str(item.get("model")), str(item.get("model"))),
            against=full.get(str(item.get("against")), str(item.get("against"))),
            metric=str(item.get("metric", "")),
            value=number(item.get("value")),
            within_noise=noise if isinstance(noise := item.get("within_noise"), bool) else None,
            sentence=str(item.get("sentence", "")),
            low=ends_of(item.get("ci95"))[0],
            high=ends_of(item.get("ci95"))[1],
            count=whole(item.get("n")),
        )
        for item in tables(content)
    ]
