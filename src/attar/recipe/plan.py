"""What a recipe will cost, before anything runs: parameters, rows, FLOPs, memory, disk and time.

Each step's plan is made by the function beside it (`plan.py`), which a row of the table of steps
names; here they are called in order, and what comes out is a table.

Left out: shared pages, memory of the allocator, caches of the runtimes. Expect ± 50 % on time.
Imports no torch until a plan is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attar.escaping import for_terminal
from attar.progress import human_seconds
from attar.recipe.keys import step_seed
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS, StepKind, kind_of
from attar.step import StepPlan

COLUMNS = ("step", "run", "parameters", "rows", "passes", "TFLOP", "memory MiB", "disk MiB", "time")


@dataclass(frozen=True)
class Plan:
    """What a whole recipe will cost."""

    name: str
    steps: tuple[StepPlan, ...]
    notes: tuple[str, ...] = ()
    """What the user should know of the data, such as rows that will be left out."""

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "name": self.name,
            "steps": [asdict(step) for step in self.steps],
            "notes": list(self.notes),
            "seconds": self.seconds,
            "memory_mib": max(step.memory_mib for step in self.steps),
            "disk_mib": sum(step.disk_mib for step in self.steps),
        }

    def text(self) -> str:
        """The plan as an aligned table."""
        rows = [COLUMNS, *(_row(step) for step in self.steps)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        total = self.as_json()
        lines.append(
            f"in all about {human_seconds(total['seconds'])}, {total['memory_mib']:.0f} MiB of "
            f"memory at the highest, {total['disk_mib']:.0f} MiB of disk; an estimate, time ± 50 %"
        )
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(map(for_terminal, lines))


def _row(step: StepPlan) -> tuple[str, ...]:
    params = "" if step.num_params is None else f"{step.num_params / 1e6:.1f} M"
    about = "≈ " if step.is_estimate else ""
    rows = next((f"{about}{rows:,}" for rows in step.counts.values()), "")
    passes = "" if step.passes is None else f"{step.passes:.3g}"
    numbers = (f"{step.flops / 1e12:.2f}", f"{step.memory_mib:.0f}", f"{step.disk_mib:.0f}")
    return (step.name, step.run, params, rows, passes, *numbers, human_seconds(step.seconds))


def plan_recipe(
    recipe: Recipe,
    recipe_folder: Path,
    kinds: Mapping[str, StepKind] = STEPS,
    made: Mapping[str, Path] | None = None,
) -> Plan:
    """Plan every step of a checked recipe; relative paths in it start at `recipe_folder`.

    Args:
        made: step → its artifact, of the steps that are done: their chunks are counted exactly.
    Raises:
        ModelError, DataError, UsageError: a model or data that a step could not use either, such
            as fewer texts than calibration needs, or a teacher that its student cannot learn from.
    """
    from attar.planning import PlanContext, PlannedTexts

    texts = PlannedTexts(recipe.data, recipe_folder, recipe.seed)
    plain = recipe.model_dump(mode="json", by_alias=True)
    with TemporaryDirectory(prefix="attar-plan-") as scratch:
        shared = PlanContext(
            "", recipe.seed, plain, recipe_folder, texts, scratch=Path(scratch), made=made or {}
        )
        for name in recipe.order:
            step = recipe.steps[name]
            context = replace(shared, name=name, seed=step_seed(step, recipe.seed))
            shared.plans[name] = kind_of(step, kinds).resolve_plan()(step, context)
    notes = (f"{plan.name}: {plan.note}" for plan in shared.plans.values() if plan.note)
    return Plan(recipe.name, tuple(shared.plans.values()), (*texts.notes, *notes))


def expected_seconds(plan: Plan) -> Mapping[str, float]:
    """Step → seconds, for the time left of a whole run."""
    return {step.name: step.seconds for step in plan.steps}
