"""Summary of a run: the outcome of every step, comparisons of methods over the seeds of a sweep,
and every gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attar.escaping import for_terminal
from attar.progress import human_seconds
from attar.recipe.outcome.findings import figures_of
from attar.recipe.outcome.gates import GateOutcome, require_gates
from attar.report.sections.seed_comparisons import SeedComparison, seed_comparisons


@dataclass(frozen=True)
class StepSummary:
    name: str
    run: str
    key: str
    reused: bool
    seconds: float
    """Duration of the run that made the artifact, even if it was reused."""
    folder: Path
    metrics: Mapping[str, Any] = field(repr=False)

    @property
    def facts(self) -> str:
        """Main counts of the step, preceded by a space; "" if its kind has none."""
        said = [f"{name} {text}" for name, text in figures_of(self.run, self.metrics)]
        return f"  {', '.join(said)}" if said else ""


@dataclass(frozen=True)
class RunSummary:
    name: str
    folder: Path
    steps: tuple[StepSummary, ...]
    gates: tuple[GateOutcome, ...] = ()
    found: tuple[str, ...] = ()
    """The results of the run as text, from `findings`."""
    next: str = ""
    """The suggested next command."""

    def metrics(self, step: str) -> Mapping[str, Any]:
        return next(summary.metrics for summary in self.steps if summary.name == step)

    @property
    def comparisons(self) -> tuple[SeedComparison, ...]:
        """Comparisons of methods over the seeds of a sweep; empty without one."""
        return seed_comparisons(
            {step.name: step.metrics for step in self.steps if step.run == "evaluate"}
        )

    def require_gates(self) -> None:
        """Raise `GateMissedError` with the numbers if a gate is missed."""
        require_gates(self.gates)

    def as_json(self) -> dict[str, Any]:
        steps = [{**asdict(step), "folder": str(step.folder)} for step in self.steps]
        gates = [asdict(gate) for gate in self.gates]
        return {
            "name": self.name,
            "folder": str(self.folder),
            "steps": steps,
            "gates": gates,
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "next": self.next,
        }

    def text(self) -> str:
        is_single = len(self.steps) == 1
        width = max(len(step.name) for step in self.steps)
        lines = [
            f"{step.name:{width}}  {'reused' if step.reused else 'made  '}  "
            f"{human_seconds(step.seconds)}{'' if is_single else step.facts}"
            for step in self.steps
        ]
        lines += self.found
        lines += [line for comparison in self.comparisons for line in comparison.lines]
        lines += [f"gate {'passed' if g.passed else 'MISSED'}: {g.sentence}" for g in self.gates]
        places = [f"run folder: {self.folder}"]
        if is_single:  # the next command reads the step's artifact, not the run
            places[-1] += f", result: {self.steps[0].folder}"
        pages = [step.folder / "index.html" for step in self.steps if step.run == "report"]
        places += [f"report: {page}" for page in pages]
        places += [f"next: {self.next}"] if self.next else []
        whole = (for_terminal(place, most=None) for place in places)
        return "\n".join([*map(for_terminal, lines), *whole])
