"""Mixed-precision results: the Pareto front of size or latency and error, and the bits per tensor.

The front is from the quantize step. The `loss` of a point is the sum of the tensors'
sensitivities; its `output_error` is that of the model quantized by the whole plan, if measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import number_text
from attar.report.reading import Made, number, numbers, table, tables, whole

IN_BLOCK = re.compile(r"^(?P<stack>.+?)\.(?P<block>\d+)\.(?P<role>.+)$")
LIMIT_WORDS = {
    "average_bits": "bits per weight on average",
    "max_latency_ms": "ms at most",
    "max_accuracy_drop": "lost at most",
}


@dataclass(frozen=True)
class FrontPoint:
    """One bit-width plan; values that were not measured are None."""

    average_bits: float | None
    size_mib: float | None
    latency_ms: float | None
    loss: float | None
    output_error: float | None
    drop: float | None
    is_chosen: bool
    is_uniform: bool
    """Whether all tensors have the same bits, as the baseline of the front."""
    is_on_front: bool


@dataclass(frozen=True)
class Cell:
    """Bits of one kind of tensor in one block; None: float."""

    role: str
    block: int
    bits: int | None


@dataclass(frozen=True)
class Budgeted:
    name: str
    facts: tuple[tuple[str, str | float], ...]
    points: tuple[FrontPoint, ...]
    cells: tuple[Cell, ...]
    elsewhere: tuple[tuple[str, int | None], ...]
    """Tensors outside the blocks and their bits."""
    is_of_latency: bool


def budgets(made: Sequence[Made]) -> tuple[Budgeted, ...]:
    return tuple(
        _budgeted(step)
        for step in made
        if step.run == "quantize" and table(step.metrics.get("budget"))
    )


def _budgeted(step: Made) -> Budgeted:
    budget = table(step.metrics.get("budget"))
    limit = table(budget.get("limit"))
    inside, outside = _placed(_widths(step.metrics, budget))
    return Budgeted(
        name=step.name,
        facts=_facts(budget, limit),
        points=tuple(map(_point, tables(budget.get("points")))),
        cells=inside,
        elsewhere=outside,
        is_of_latency="max_latency_ms" in limit,
    )


def _facts(
    budget: Mapping[str, Any], limit: Mapping[str, Any]
) -> tuple[tuple[str, str | float], ...]:
    facts: list[tuple[str, str | float]] = [
        ("budget", f"{number_text(number(value))} {LIMIT_WORDS.get(name, name)}")
        for name, value in limit.items()
    ]
    latency = table(budget.get("latency"))
    shown = [
        ("bits per weight", budget.get("average_bits")),
        ("size MiB", budget.get("size_mib")),
        ("predicted ms", budget.get("predicted_latency_ms")),
        ("float ms", latency.get("float_ms")),
        ("Linears in int8", latency.get("num_int8")),
        ("of", latency.get("num_linears")),
        ("output error", budget.get("output_error")),
        ("drop on held-out rows", budget.get("drop")),
        ("seconds", budget.get("seconds")),
    ]
    known = [(name, number(value)) for name, value in shown]
    return (*facts, *((name, value) for name, value in known if value is not None))


def _point(row: Mapping[str, Any]) -> FrontPoint:
    return FrontPoint(
        **numbers(row, "average_bits", "size_mib", "latency_ms", "loss", "output_error", "drop"),
        is_chosen=row.get("is_chosen") is True,
        is_uniform=row.get("is_uniform") is True,
        is_on_front=number(row.get("loss")) is not None,
    )


def _widths(metrics: Mapping[str, Any], budget: Mapping[str, Any]) -> dict[str, int | None]:
    """Tensor → bits, weights first; None: left float."""
    found: dict[str, int | None] = {}
    for kind in ("weights", "sites"):
        for name, entry in table(metrics.get(kind)).items():
            if (bits := whole(table(entry).get("bits"))) is not None:
                found[name] = bits
    left = budget.get("float_tensors")
    return found | {str(name): None for name in (left if isinstance(left, list) else [])}


def _placed(
    widths: Mapping[str, int | None],
) -> tuple[tuple[Cell, ...], tuple[tuple[str, int | None], ...]]:
    """Tensors inside blocks by role and block; the rest by name."""
    matches = {name: IN_BLOCK.match(name) for name in widths}
    stacks = {match["stack"] for match in matches.values() if match}
    inside: list[Cell] = []
    outside: list[tuple[str, int | None]] = []
    for name, match in matches.items():
        if match is None:
            outside.append((name, widths[name]))
            continue
        role = match["role"].removesuffix(".weight")
        if len(stacks) > 1:
            role = f"{match['stack'].split('.')[-2]} {role}"
        inside.append(Cell(role, int(match["block"]), widths[name]))
    return tuple(inside), tuple(outside)
