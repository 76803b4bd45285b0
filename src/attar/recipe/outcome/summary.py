"""What a run has to say at its end: every step with what became of it, methods held against each
other over the seeds of a sweep, and every gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

from attar.escaping import for_terminal
from attar.progress import human_seconds
from attar.recipe.checking.references import table_of
from attar.recipe.outcome.gates import GateOutcome, require_gates
from attar.report.quantities import NBSP, metric_text
from attar.report.sections.seeds import SeedComparison, seed_comparisons

FACTS: Mapping[str, tuple[str, ...]] = {
    "tokenize": ("documents", "chunks", "tokens"),
    "score": ("chunks", "tokens", "nll"),
    "generate": ("texts", "ended", "new_tokens"),
    "export_data": ("rows", "tokens", "files"),
    "select": ("chunks", "kept", "kept_tokens", "cut", "fates"),
    "train": ("steps", "validation"),
    "proxy": ("spearman",),
    "evaluate": ("models",),
}
"""Kind of step → metrics that are said when a run ends."""
MODELS_SAID = 4
FATES = {
    "among the highest": "trimmed",
    "too short": "too short",
    "near duplicate": "near duplicates",
    "could not be scored": "without a score",
}
"""Of a selection's chunks: why they were set aside → how it is said."""


@dataclass(frozen=True)
class StepSummary:
    """What became of one step."""

    name: str
    run: str
    key: str
    reused: bool
    seconds: float
    """Of the run that made the artifact, also when it was reused."""
    folder: Path
    metrics: Mapping[str, Any] = field(repr=False)

    @property
    def facts(self) -> str:
        """Its most telling counts, behind a space; "" for kinds of steps without any."""
        found = chain.from_iterable(
            _figures(name, self.metrics.get(name)) for name in FACTS.get(self.run, ())
        )
        said = [f"{name} {_text(value)}" for name, value in found if _text(value)]
        return f"  {', '.join(said)}" if said else ""


def _text(value: Any) -> str:
    """A figure; "" for what is none."""
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else ""


def first_quality(model: Mapping[str, Any]) -> tuple[str, float] | None:
    """The first metric that carries its own value: the one the data's task is judged by."""
    for name, metric in model.items():
        value = table_of(metric).get("value")
        if isinstance(value, int | float):
            return name, value
    return None


def _qualities(models: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What each model of an evaluation is judged by, of no more models than a line holds."""
    found: list[tuple[str, str]] = []
    for model in list(models)[:MODELS_SAID]:
        if (quality := first_quality(table_of(models[model]))) is not None:
            metric, value = quality
            found.append((f"{model} {metric}", metric_text(metric, value).replace(NBSP, " ")))
    more = len(models) - MODELS_SAID
    return [*found, ("and", f"{more} more")] if more > 0 else found


def _figures(name: str, value: Any) -> list[tuple[str, Any]]:
    """A metric, or what is said of a table of them."""
    if not isinstance(value, Mapping):
        return [(name, value)]
    inside = cast("Mapping[str, Any]", value)
    if name == "validation":  # the first one chose the weights
        return [(f"{name} {metric}", inside[metric]) for metric in list(inside)[:1]]
    if name == "models":
        return list(_qualities(inside))
    if name == "fates":
        return [(words, inside[fate]) for fate, words in FATES.items() if inside.get(fate)]
    return [(name, inside.get("value"))]


@dataclass(frozen=True)
class RunSummary:
    """What became of a run."""

    name: str
    folder: Path
    steps: tuple[StepSummary, ...]
    gates: tuple[GateOutcome, ...] = ()

    def metrics(self, step: str) -> Mapping[str, Any]:
        """The metrics of one step."""
        return next(summary.metrics for summary in self.steps if summary.name == step)

    @property
    def comparisons(self) -> tuple[SeedComparison, ...]:
        """Methods over the seeds of a sweep; none without one."""
        return seed_comparisons(
            {step.name: step.metrics for step in self.steps if step.run == "evaluate"}
        )

    def require_gates(self) -> None:
        """Raise `GateMissedError` with the numbers when a gate was missed."""
        require_gates(self.gates)

    def as_json(self) -> dict[str, Any]:
        """The summary as plain data, metrics included."""
        steps = [{**asdict(step), "folder": str(step.folder)} for step in self.steps]
        gates = [asdict(gate) for gate in self.gates]
        return {
            "name": self.name,
            "folder": str(self.folder),
            "steps": steps,
            "gates": gates,
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
        }

    def text(self) -> str:
        """The summary as lines."""
        width = max(len(step.name) for step in self.steps)
        lines = [
            f"{step.name:{width}}  {'reused' if step.reused else 'made  '}  "
            f"{human_seconds(step.seconds)}{step.facts}"
            for step in self.steps
        ]
        lines += [line for comparison in self.comparisons for line in comparison.lines]
        lines += [f"gate {'passed' if g.passed else 'MISSED'}: {g.sentence}" for g in self.gates]
        lines.append(f"all in {self.folder}")
        if len(self.steps) == 1:  # the next verb reads what the step made, not the run
            lines[-1] += f", made: {self.steps[0].folder}"
        return "\n".join(map(for_terminal, lines))
