"""A plan as data and as a table: what each step makes, how much it works, and what it needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from attar.escaping import for_terminal
from attar.progress import human_seconds


@dataclass(frozen=True)
class StepPlan:
    """What one step will cost."""

    name: str
    run: str
    num_params: int | None
    """Of the model it makes."""
    flops: int
    """Of the whole step."""
    memory_mib: float
    disk_mib: float
    """Of the artifact, and of what it needs while it is made."""
    seconds: float
    texts_at_once: int = 1
    """That `memory_mib` is for."""
    text_mib: float = 0.0
    """What each of them adds."""
    lowered_by: str = ""
    """The step's setting that takes fewer of them at once and leaves the batch as it is."""

    @property
    def least_mib(self) -> float:
        """Memory with one text at a time."""
        return self.memory_mib - (self.texts_at_once - 1) * self.text_mib


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
        head = ("step", "run", "parameters", "TFLOP", "memory MiB", "disk MiB", "time")
        rows = [head, *(_row(step) for step in self.steps)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
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
    numbers = (f"{step.flops / 1e12:.2f}", f"{step.memory_mib:.0f}", f"{step.disk_mib:.0f}")
    return (step.name, step.run, params, *numbers, human_seconds(step.seconds))
