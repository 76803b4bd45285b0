"""The whole report as data, with sections in reading order. report.json contains it; the HTML and
Markdown versions are rendered from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attar.report.reading import Made
from attar.report.sections.classes import Classes, classes_of
from attar.report.sections.comparison import Comparison, comparisons
from attar.report.sections.compression import Exported, Quantized, exports, quantizations
from attar.report.sections.extrapolation import Extrapolation, extrapolations
from attar.report.sections.folds import Fold, folds
from attar.report.sections.gates import Gate, gates
from attar.report.sections.generated import Generated, generated
from attar.report.sections.headline import Headline, headline
from attar.report.sections.lineage import Node, lineage
from attar.report.sections.mixed_precision import Budgeted, budgets
from attar.report.sections.next_command import next_command
from attar.report.sections.parts import Parts, parts
from attar.report.sections.provenance import Provenance, provenance
from attar.report.sections.recovery import Recovery, recoveries
from attar.report.sections.seed_comparisons import SeedComparison, comparisons_of
from attar.report.sections.selection import Selected, selections
from attar.report.sections.study import Study, studies
from attar.report.sections.sweep import Sweep, sweeps
from attar.report.sections.training import Training, trainings
from attar.report.sections.vectors import VectorTable, vector_tables
from attar.report.sections.zero_shot import ZeroShot, zero_shots


@dataclass(frozen=True)
class Page:
    title: str
    headline: Headline
    next: str
    """The suggested next command; "" if there is none."""
    lineage: tuple[Node, ...]
    comparisons: tuple[Comparison, ...]
    parts: tuple[Parts, ...]
    vectors: tuple[VectorTable, ...]
    classes: tuple[Classes, ...]
    zero_shots: tuple[ZeroShot, ...]
    selections: tuple[Selected, ...]
    generated: tuple[Generated, ...]
    trainings: tuple[Training, ...]
    recoveries: tuple[Recovery, ...]
    extrapolations: tuple[Extrapolation, ...]
    folds: tuple[Fold, ...]
    studies: tuple[Study, ...]
    quantizations: tuple[Quantized, ...]
    budgets: tuple[Budgeted, ...]
    exports: tuple[Exported, ...]
    gates: tuple[Gate, ...]
    over_seeds: tuple[SeedComparison, ...]
    sweeps: tuple[Sweep, ...]
    provenance: Provenance

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def page_of(
    made: Sequence[Made],
    recipe: Mapping[str, Any],
    title: str | None = None,
    folder: Path | None = None,
) -> Page:
    """Every section from the artifacts of a run; a section without material is empty, never
    invented.

    Args:
        folder: the run's folder, as it is to be shown.
    """
    compared, asked = comparisons(made), zero_shots(made)
    judged = gates(made, recipe)
    machine = next((comparison.machine for comparison in compared if comparison.machine), {})
    return Page(
        title=title or str(recipe.get("name") or "report"),
        headline=headline(made, compared, judged, asked),
        next=next_command(made, recipe, folder) if folder else "",
        lineage=lineage(made, next(iter(compared), None)),
        comparisons=compared,
        parts=parts(made),
        vectors=vector_tables(made),
        classes=classes_of(made),
        zero_shots=asked,
        selections=selections(made),
        generated=generated(made),
        trainings=trainings(made),
        recoveries=recoveries(made),
        extrapolations=extrapolations(made),
        folds=folds(made),
        studies=studies(made),
        quantizations=quantizations(made),
        budgets=budgets(made),
        exports=exports(made),
        gates=judged,
        over_seeds=comparisons_of(made),
        sweeps=sweeps(made, compared),
        provenance=provenance(made, machine, recipe),
    )
