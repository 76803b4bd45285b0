"""The Pareto front: what each size, or each latency, costs in answers.

A point is a plan that loses least among all plans as cheap. Its `loss` is what the sensitivities
add up to; `output_error`, where it was measured, is that of the model quantized by the whole plan.
How far the two are apart is how well the assumption holds that errors add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attar.quantization.method import BitPlan
from attar.quantization.precision.knapsack import Choices

POINTS = 16
"""Budgets tried between the cheapest and the dearest plan."""


@dataclass(frozen=True)
class Point:
    """One plan and what is known of it."""

    plan: BitPlan
    cost: float
    """In the unit of the budget: average bits, or milliseconds."""
    loss: float | None
    """Predicted; None where sensitivities were not measured at these widths."""
    size_mib: float
    average_bits: float
    latency_ms: float | None = None
    output_error: float | None = None
    drop: float | None = None
    is_chosen: bool = False
    is_uniform: bool = False
    """Not on the front: every weight that the budget covers has the same width, and so has every
    site."""

    def as_row(self) -> dict[str, Any]:
        """Plain data for the metrics."""
        return {
            "average_bits": self.average_bits,
            "size_mib": self.size_mib,
            "latency_ms": self.latency_ms,
            "loss": self.loss,
            "output_error": self.output_error,
            "drop": self.drop,
            "num_float": len(self.plan.float_tensors),
            "is_chosen": self.is_chosen,
            "is_uniform": self.is_uniform,
        }


def budgets(choices: Choices, extra: Iterable[float] = ()) -> list[float]:
    """Budgets from the cheapest to the dearest plan, and those asked for, in order."""
    even = np.linspace(choices.cheapest, choices.dearest, POINTS).tolist()
    return sorted({*even, *extra})


def front(choices: Choices, extra: Iterable[float] = ()) -> list[list[int]]:
    """Plans along the front, the cheapest first, each once."""
    plans: list[list[int]] = []
    for budget in budgets(choices, extra):
        plan = choices.within(budget)
        if plan not in plans:
            plans.append(plan)
    return plans


def spread(count: int, wanted: int) -> Sequence[int]:
    """`wanted` of `count` places, evenly spread, the ends included."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(wanted, count))})
