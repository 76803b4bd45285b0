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
from attar.recipe.outcome.gates import GateOutcome, require_gates
from attar.report.sections.seeds import SeedComparison, seed_comparisons

FACTS: Mapping[str, tuple[str, ...]] = {
    "tokenize": ("documents", "chunks", "tokens"),
    "score": ("chunks", "tokens", "nll"),
    "generate": ("texts", "ended", "new_tokens"),
    "export_data": ("rows", "tokens", "files"),
    "select": ("chunks", "kept", "kept_tokens", "cut", "fates"),
    "train": ("steps", "validation"),
    "proxy": ("spearman",),
}
"""Kind of step → metrics that are said when a run ends."""
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
        said = [
            f"{name} {value:,.3f}" if isinstance(value, float) else f"{name} {value:,}"
            for name, value in found
            if isinstance(value, int | float)
        ]
        return f"  {', '.join(said)}" if said else ""


def _figures(name: str, value: Any) -> list[tuple[str, Any]]:
    """A metric, or what is said of a table of them."""
    if not isinstance(value, Mapping):
        return [(name, value)]
    inside = cast("Mapping[str, Any]", value)
    if name == "validation":  # the first one chose the weights
        return [(f"{name} {metric}", inside[metric]) for metric in list(inside)[:1]]
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
