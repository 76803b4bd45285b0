"""Cost of each part of the evaluated models, and the latency of prefill and decoding steps.

Models with equal parts, such as the runs of a seed sweep, share a row. The latencies of a family
are the mean over its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from attar.report.quantities import count_text, number_text, ratio_text
from attar.report.reading import Made, base_name, mean_of, number, table
from attar.report.sections.comparison import family_name

STAGES = {"prefill": "prefill", "decode_step": "decode step"}
"""Stage in a result → its name on the page."""


@dataclass(frozen=True)
class PartsRow:
    """Models with equal parts."""

    models: str
    figures: tuple[tuple[str, str], ...]
    """Parameters and FLOPs of each part, the sum last."""


@dataclass(frozen=True)
class StagesRow:
    """One model, or a family."""

    model: str
    figures: tuple[tuple[str, str, str], ...]
    """p50, p95, and speedup over the first float model, for each stage."""


@dataclass(frozen=True)
class Parts:
    step: str
    names: tuple[str, ...]
    tokens: str
    """Text length for counting FLOPs; in an encoder-decoder, of both sides."""
    rows: tuple[PartsRow, ...]
    shape: str
    """Batch × tokens of the timing; "" if not timed."""
    stage_names: tuple[str, ...]
    stages: tuple[StagesRow, ...]

    @property
    def heads(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Column heads: each stack with its parts; a part of no stack has none."""
        split = [name.partition(".") for name in self.names]
        return tuple(
            (stack, tuple(part for _, _, part in group if part))
            for stack, group in groupby(split, key=lambda each: each[0])
        )


def parts(made: Sequence[Made]) -> tuple[Parts, ...]:
    """Of every evaluate step that knows any; the runs of a swept one are merged."""
    models: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    tokens: dict[str, str] = {}
    for step in made:
        if step.run == "evaluate":
            found = table(step.metrics.get("models")).items()
            of_step = models.setdefault(base_name(step.name), [])
            of_step += [(family_name(name), table(figures)) for name, figures in found]
            tokens[base_name(step.name)] = number_text(number(step.metrics.get("flops_tokens")))
    every = (_parts(name, tokens[name], found) for name, found in models.items())
    return tuple(one for one in every if one.rows or one.stages)


def _parts(step: str, tokens: str, models: Sequence[tuple[str, Mapping[str, Any]]]) -> Parts:
    costs = [(name, table(figures.get("parts"))) for name, figures in models]
    names = tuple(dict.fromkeys(part for _, each in costs for part in each))
    rows: dict[tuple[tuple[str, str], ...], dict[str, None]] = {}
    for model, each in costs:
        if each:
            rows.setdefault(_costs(each, names), {})[model] = None
    timed: dict[str, list[Mapping[str, Any]]] = {}
    for name, figures in models:
        if stages := table(figures.get("stages")):
            timed.setdefault(name, []).append(stages)
    first = table(next((next(iter(runs[0].values())) for runs in timed.values()), None))
    return Parts(
        step=step,
        names=(*names, "all") if names else (),
        tokens=tokens,
        rows=tuple(PartsRow(", ".join(models), figures) for figures, models in rows.items()),
        shape=_shape(first) if timed else "",
        stage_names=tuple(STAGES.values()) if timed else (),
        stages=tuple(
            StagesRow(name, tuple(_stage([table(run.get(s)) for run in runs]) for s in STAGES))
            for name, runs in timed.items()
        ),
    )


def _costs(content: Mapping[str, Any], names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    figures = [
        [number(table(content.get(name)).get(field)) for name in names]
        for field in ("num_params", "flops")
    ]
    summed = [[*each, sum(value or 0 for value in each)] for each in figures]
    return tuple((count_text(a), count_text(b)) for a, b in zip(*summed, strict=True))


def _shape(entry: Mapping[str, Any]) -> str:
    shown = (number_text(number(entry.get(name))) for name in ("batch", "tokens"))
    return " × ".join(shown)


def _stage(runs: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    p50, p95 = (mean_of(number(run.get(name)) for run in runs) for name in ("p50", "p95"))
    faster = mean_of(number(table(run.get("speedup")).get("median")) for run in runs)
    return number_text(p50), number_text(p95), ratio_text(faster)
