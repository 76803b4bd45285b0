"""Estimates the cost of a recipe before it runs: parameters, rows, FLOPs, memory, disk and time.

Each kind of step has its own function (in `plan.py`), listed in the table of steps. They are called
in order, and the results are shown as a table.

Left out: shared pages, allocator overhead, and caches of the runtimes. Time estimates are within
about ± 50 %. Imports torch only when a plan is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from attar.config import Config
from attar.data.look.summary import DataSummary
from attar.escaping import for_terminal
from attar.extras import training_explained
from attar.progress import Progress, aligned, human_seconds
from attar.recipe.keys import step_seed
from attar.recipe.running.intents import Intent, intent_lines, reused
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS, StepKind, as_table, kind_of, run_of, steps_read
from attar.step import StepPlan

if TYPE_CHECKING:
    from attar.planning import PlanContext

UNITS = {10 ** (3 * power): letter for power, letter in enumerate("TPEZY", start=4)}
"""FLOPs → prefix of their unit."""
MEANINGS = {
    "passes": "how often a model reads the rows; for training, the epochs",
    "steps": "optimizer steps",
    "FLOP": "floating-point operations of the whole step",
    "training": "those of training alone, without evaluations",
    "by 6·N": "the same, estimated as in papers from N, the parameters without embeddings and head",
    "offline": "those of preparing the training data",
    "a student": "that, divided by the number of students that use the data",
}
"""Column of the plan → what it shows; other columns need no explanation."""


@dataclass(frozen=True)
class Offline:
    """FLOPs spent on preparing the data of a train step."""

    total: float
    share: float
    """This step's share, if several train steps use the same data."""


@dataclass(frozen=True)
class Plan:
    name: str
    steps: tuple[StepPlan, ...]
    notes: tuple[str, ...] = ()
    """Notes about the data, such as rows that will be left out."""
    offline: Mapping[str, Offline] = field(default_factory=dict[str, Offline])
    flops_per_s: float | None = None
    """Assumed speed; None: that of this machine."""
    intents: tuple[Intent, ...] = ()
    """What a run would do with each step; empty: run all steps."""
    data: tuple[DataSummary, ...] = ()
    """Summaries of the data that was read, which include `data_notes`."""
    data_notes: tuple[str, ...] = ()

    @property
    def made(self) -> frozenset[str]:
        """Steps that are already done."""
        return frozenset(reused(self.intents))

    @property
    def missing(self) -> tuple[StepPlan, ...]:
        return tuple(step for step in self.steps if step.name not in self.made)

    @property
    def seconds(self) -> float:
        """Total duration of the steps that are not done."""
        return sum(step.seconds for step in self.missing)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "steps": [asdict(step) for step in self.steps],
            "data": [summary.as_json() for summary in self.data],
            "notes": [*self.data_notes, *self.notes],
            "offline_flops": {name: asdict(each) for name, each in self.offline.items()},
            "seconds": self.seconds,
            "assumed_flops_per_s": self.flops_per_s,
            "made": sorted(self.made),
            "actions": {
                intent.step: {"action": intent.action, "changes": list(intent.changes)}
                for intent in self.intents
            },
            "memory_mib": max(step.memory_mib for step in self.steps),
            "disk_mib": sum(step.disk_mib for step in self.steps),
        }

    def text(self) -> str:
        """The plan as an aligned table."""
        columns = self._columns()
        rows = [tuple(columns), *zip(*columns.values(), strict=True)]
        lines = aligned(rows, names=2)
        explained = [(name, MEANINGS.get(name.lstrip("".join(UNITS.values())))) for name in columns]
        lines += aligned([(f"  {name}", text) for name, text in explained if text], names=2)
        total = self.as_json()
        time, doubt = human_seconds(total["seconds"]), ", time ± 50 %"
        if self.flops_per_s is not None:
            hours = sum(step.flops for step in self.missing) / self.flops_per_s / 3600
            rest = human_seconds(max(0.0, total["seconds"] - 3600 * hours))
            time = f"{hours:,.1f} GPU-hours at an assumed {self.flops_per_s:.3g} FLOP/s and {rest} "
            time, doubt = f"{time}beside them", ""
        memory, disk = (" ".join(_mebibytes([total[name]])) for name in ("memory_mib", "disk_mib"))
        if self.made:
            time = f"{time} for the {len(self.missing)} of {len(self.steps)} steps not made yet"
        lines.append(
            f"in total about {time}, {memory} of memory at peak, {disk} of disk; an estimate{doubt}"
        )
        if wanted := intent_lines(self.intents):
            lines += ["what a run would do with each step:", *(f"  {line}" for line in wanted)]
        notes = self.notes if self.data else (*self.data_notes, *self.notes)
        lines += [f"note: {note}" for note in notes]
        about_data = [line for summary in self.data for line in summary.lines()]
        return "\n".join([*about_data, *map(for_terminal, lines)])

    def _columns(self) -> dict[str, list[str]]:
        """Heading → one cell per step; empty columns are left out."""
        most = max(step.flops for step in self.steps)
        unit = max(unit for unit in UNITS if unit <= max(most / 1000, min(UNITS)))

        def operations(found: float | None) -> str:
            return "" if found is None else f"{found / unit:.2f}"

        offline = [self.offline.get(step.name) for step in self.steps]
        *memory, memory_unit = _mebibytes([step.memory_mib for step in self.steps])
        *disk, disk_unit = _mebibytes([step.disk_mib for step in self.steps])
        columns = {
            "step": [step.name for step in self.steps],
            "run": [step.run for step in self.steps],
            "parameters": [
                "" if s.num_params is None else f"{s.num_params / 1e6:.1f} M" for s in self.steps
            ],
            "rows": [_rows(step) for step in self.steps],
            "passes": ["" if s.passes is None else f"{s.passes:.3g}" for s in self.steps],
            "steps": [f"{s.counts['steps']:,}" if "steps" in s.counts else "" for s in self.steps],
            f"{UNITS[unit]}FLOP": [operations(step.flops) for step in self.steps],
            "training": [operations(step.training and step.training.all) for step in self.steps],
            "by 6·N": [
                operations(step.training and step.training.non_embedding) for step in self.steps
            ],
            "offline": [operations(each and each.total) for each in offline],
            "a student": [operations(each and each.share) for each in offline],
            f"memory {memory_unit}": memory,
            f"disk {disk_unit}": disk,
            "time": [
                "made" if step.name in self.made else human_seconds(step.seconds)
                for step in self.steps
            ],
        }
        return {heading: cells for heading, cells in columns.items() if any(cells)}


def _mebibytes(found: Sequence[float]) -> list[str]:
    """Format amounts in MiB, or in GiB if the largest would have more than five digits; returns the
    numbers and the unit.

    Example:
        >>> _mebibytes([3.2]), _mebibytes([1024.0, 204800.0])
        (['3', 'MiB'], ['1.0', '200.0', 'GiB'])
    """
    if max(found) < 1e5:
        return [*(f"{each:.0f}" for each in found), "MiB"]
    return [*(f"{each / 1024:,.1f}" for each in found), "GiB"]


def _rows(step: StepPlan) -> str:
    about = "≈ " if step.is_estimate else ""
    return next((f"{about}{rows:,}" for rows in step.counts.values()), "")


def offline_flops(recipe: Recipe, plans: Mapping[str, StepPlan]) -> dict[str, Offline]:
    """Train step → FLOPs spent on preparing its data, for steps with any.

    All steps that the data depends on count (scoring, generated texts, a proxy), and so does the
    training of the reference, which has no other use. The training of the teacher does not count.
    """
    behind: dict[str, set[str]] = {}
    for name, step in recipe.steps.items():
        if run_of(step) == "train":
            made = (r.word for r in kind_of(step).data_in(step) if r.word in recipe.steps)
            found = set[str]().union(*(_behind(recipe.steps, word) for word in made))
            behind[name] = {each for each in found if plans[each].flops}
    students = Counter(each for found in behind.values() for each in found)
    return {
        name: Offline(
            sum(plans[each].flops for each in found),
            sum(plans[each].flops / students[each] for each in found),
        )
        for name, found in behind.items()
        if found
    }


def _behind(steps: Mapping[str, Config], name: str, is_reference: bool = False) -> set[str]:
    """A step and the steps that it depends on, without the training of models other than
    references."""
    if run_of(steps[name]) == "train":
        return {name} if is_reference else set()
    read = steps_read(steps[name], steps)
    return {name}.union(
        *(_behind(steps, r.word, is_reference or r.place == "reference") for r in read)
    )


@training_explained()
def plan_recipe(
    recipe: Recipe,
    recipe_folder: Path,
    kinds: Mapping[str, StepKind] = STEPS,
    intents: Sequence[Intent] = (),
    flops_per_s: float | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Plan every step of a checked recipe; relative paths in it start at `recipe_folder`.

    Args:
        intents: what a run would do with each step. For reused steps, chunks are counted exactly.
        flops_per_s: speed of the target device; None: measured on this machine.
        progress: shows progress; data is then also summarized. None: neither.
    Raises:
        ModelError, DataError, UsageError: a step would fail on its model or data, such as fewer
            texts than calibration needs, or a teacher that does not match its student.
    """
    from attar.planning import PlanContext, PlannedTexts

    quiet = progress or Progress(quiet=True)
    texts = PlannedTexts(recipe.data, recipe_folder, recipe.seed, quiet.say)
    plain = as_table(recipe)
    with TemporaryDirectory(prefix="attar-plan-") as scratch:
        shared = PlanContext(
            *("", recipe.seed, plain, recipe_folder, texts),
            scratch=Path(scratch),
            made=reused(intents),
            flops_per_s=flops_per_s,
        )
        with quiet.task("planning", len(recipe.order)) as bar:
            for name in recipe.order:
                step = recipe.steps[name]
                context = replace(shared, name=name, seed=step_seed(step, recipe.seed))
                plan = kind_of(step, kinds).resolve_plan()(step, context)
                shared.plans[name] = replace(plan, name=name, run=run_of(step))
                bar.advance(note=name)
        data = () if progress is None else tuple(_summaries(recipe, shared))
    notes = notes_of(tuple(shared.plans.values()))
    plans = shared.plans
    offline = offline_flops(recipe, plans) if kinds is STEPS else {}
    return Plan(
        *(recipe.name, tuple(plans.values()), tuple(notes), offline, flops_per_s),
        intents=tuple(intents),
        data=data,
        data_notes=texts.notes,
    )


def _summaries(recipe: Recipe, context: PlanContext) -> Iterator[DataSummary]:
    """Summary of each data table that was read, with lengths in tokens of its first model."""
    from attar.data.look.lengths import WORDS, tokens_of
    from attar.data.look.one_pass import summary_of

    for name in recipe.data:
        if (data := context.texts.read(name)) is None:
            continue
        readers = (
            step
            for step, config in recipe.steps.items()
            if step in context.models
            and name in [reference.word for reference in kind_of(config).data_in(config)]
        )
        first = next(readers, None)
        folder = None if first is None else context.models[first].tokenizer_folder
        found = summary_of(data, WORDS if folder is None else tokens_of(folder))
        if found.splits:  # not only chunks of a corpus
            yield found


def notes_of(plans: Sequence[StepPlan]) -> list[str]:
    """Notes of the steps; identical notes of copies in a sweep are given once."""
    saying: dict[tuple[str, str], list[str]] = {}
    for plan in plans:
        if plan.note:
            saying.setdefault((plan.name.partition("@")[0], plan.note), []).append(plan.name)
    return [
        f"{step} ({len(names)} runs): {note}" if names[1:] else f"{names[0]}: {note}"
        for (step, note), names in saying.items()
    ]
