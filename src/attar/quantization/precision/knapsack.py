"""Exact solution of the multiple-choice knapsack problem: one option per item, minimum total loss.

If losses are additive, choosing bit widths is such a problem. The dynamic-programming table solves
it for *every* budget at once: the minimum loss of the first i items at a cost of at most c cells is

    best_i(c) = min over options o of  loss_i(o) + best_{i−1}(c − cost_i(o))

If at most `MAX_CELLS` cells are needed, a cell is the greatest common divisor of all costs and the
solution is optimal. Otherwise costs are rounded up to whole cells: the budget is still met, and at
most one cell per item, items/262,144 of the most expensive plan, is wasted. A larger budget never
gives a larger loss.

Left out: the Lagrangian relaxation of HAWQ-V2 (2020), whose convex front misses the plans between
its corners.
Shape letters: N items, O options of an item, C cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attar.quantization.method import BitPlan

MAX_CELLS = 2**18
"""Enough for exact solutions of MiniLM and BERT-base, whose tables take 10 and 20 MB."""


@dataclass(frozen=True)
class Choices:
    """The solved table."""

    costs: Sequence[np.ndarray]
    losses: Sequence[np.ndarray]
    cell: float
    """Cost of one cell."""
    taken: np.ndarray
    """(N, C + 1): option of item i in the best plan for items 0 … i within c cells."""
    spent: Sequence[np.ndarray]
    """Per item, the cost of each option in cells, minus that of its cheapest option."""

    @property
    def cheapest(self) -> float:
        """Cost of the cheapest plan, the smallest feasible budget."""
        return float(sum(costs.min() for costs in self.costs))

    @property
    def dearest(self) -> float:
        """Cost of the most expensive plan."""
        return float(sum(costs.max() for costs in self.costs))

    def within(self, budget: float) -> list[int]:
        """The options of the best plan with a cost of at most `budget`.

        Raises:
            ValueError: the cheapest plan costs more than `budget`.
        """
        slack = budget - self.cheapest
        if slack < 0:
            raise ValueError(f"the cheapest plan costs {self.cheapest}, the budget is {budget}")
        left = min(math.floor(slack / self.cell), self.taken.shape[1] - 1)
        plan: list[int] = []
        for taken, spent in zip(reversed(self.taken), reversed(self.spent), strict=True):
            option = int(taken[left])
            left -= int(spent[option])
            plan.append(option)
        return plan[::-1]

    def cost(self, plan: Sequence[int]) -> float:
        """Exact cost of a plan, in the unit of `costs`."""
        return float(sum(costs[o] for costs, o in zip(self.costs, plan, strict=True)))

    def loss(self, plan: Sequence[int]) -> float:
        """Total loss of a plan."""
        return float(sum(losses[o] for losses, o in zip(self.losses, plan, strict=True)))


def solve_choices(costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]]) -> Choices:
    """Solve the knapsack for items whose options have these costs and losses.

    Args:
        costs: cost of each option of each item; integers are kept exact.
        losses: finite numbers, in the same shape.
    Raises:
        ValueError: no items, or an item whose costs and losses differ in number.
    """
    if not costs or any(len(c) != len(x) or not c for c, x in zip(costs, losses, strict=True)):
        raise ValueError("every item needs as many losses as costs, and at least one")
    cost_arrays = [np.asarray(each, dtype=np.float64) for each in costs]
    loss_arrays = [np.asarray(each, dtype=np.float64) for each in losses]
    above = [each - each.min() for each in cost_arrays]
    cell = _cell_of(above)
    spent = [np.ceil(each / cell - 1e-9).astype(np.int64) for each in above]
    num_cells = int(sum(each.max() for each in spent))
    best = np.zeros(num_cells + 1)
    taken = np.empty((len(spent), num_cells + 1), dtype=np.uint8)
    for row, (item_spent, item_losses) in enumerate(zip(spent, loss_arrays, strict=True)):
        total = np.full(num_cells + 1, np.inf)
        for option in np.argsort(item_spent, kind="stable"):
            moved = np.full(num_cells + 1, np.inf)
            moved[item_spent[option] :] = best[: num_cells + 1 - item_spent[option]]
            moved += item_losses[option]
            better = moved < total
            total[better] = moved[better]
            taken[row, better] = option
        best = total
    return Choices(cost_arrays, loss_arrays, cell, taken, spent)


def _cell_of(above: Sequence[np.ndarray]) -> float:
    """The greatest common divisor of integer costs if the table fits in `MAX_CELLS`, otherwise a
    fraction of the most expensive plan."""
    values = np.concatenate(above)
    dearest = float(sum(each.max() for each in above))
    coarse = dearest / MAX_CELLS or 1.0
    if bool((values == np.round(values)).all()):
        divisor = float(np.gcd.reduce(values.astype(np.int64))) or 1.0
        return max(divisor, coarse)
    return coarse


POINTS = 16
"""Number of budgets tried between the cheapest and the most expensive plan."""


@dataclass(frozen=True)
class Point:
    """One plan with its cost and loss."""

    plan: BitPlan
    cost: float
    """In the unit of the budget: average bits, or milliseconds."""
    loss: float | None
    """Predicted loss; None if sensitivities were not measured at these widths."""
    size_mib: float
    average_bits: float
    latency_ms: float | None = None
    output_error: float | None = None
    drop: float | None = None
    is_chosen: bool = False
    is_uniform: bool = False
    """Whether all weights that the budget covers have the same width, and all sites too. Such a
    plan is not on the front."""

    def as_row(self) -> dict[str, Any]:
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


def front(choices: Choices, extra: Iterable[float] = ()) -> list[list[int]]:
    """The distinct plans along the Pareto front, cheapest first.

    Args:
        extra: budgets to try besides the evenly spaced ones.
    """
    even = np.linspace(choices.cheapest, choices.dearest, POINTS).tolist()
    plans: list[list[int]] = []
    for budget in sorted({*even, *extra}):
        plan = choices.within(budget)
        if plan not in plans:
            plans.append(plan)
    return plans


def spread(count: int, wanted: int) -> Sequence[int]:
    """`wanted` of `count` indices, evenly spaced, including both ends."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(wanted, count))})
