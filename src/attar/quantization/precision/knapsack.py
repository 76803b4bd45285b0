"""One option for every item, the cheapest loss that a budget allows: exactly.

When losses add up, a plan of widths is a multiple-choice knapsack, and its table has the answer for
*every* budget at once: how little is lost when the first items may cost c cells.

    best_i(c) = min over options o of  loss_i(o) + best_{i−1}(c − cost_i(o))

A cell is the greatest common divisor of all costs when that needs at most `MAX_CELLS` of them:
then the answer is the optimum. Otherwise costs are rounded up to a cell: the budget holds all the
same, and at most one cell an item, items/262,144 of the dearest plan, goes unused. The front is the
lower left edge of the table, so that a larger budget never loses more.

Left out: the Lagrangian relaxation of the literature (HAWQ-V2, 2020), whose convex front misses
plans between its corners.
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
"""Fine enough that MiniLM and BERT-base are exact; their tables take 10 and 20 MB."""


@dataclass(frozen=True)
class Choices:
    """The solved table."""

    costs: Sequence[np.ndarray]
    losses: Sequence[np.ndarray]
    cell: float
    """Cost of one cell."""
    taken: np.ndarray
    """(N, C + 1): the option of item i in the best plan for the items up to i within c cells."""
    spent: Sequence[np.ndarray]
    """For each item its options' cells above its cheapest option."""

    @property
    def cheapest(self) -> float:
        """Cost of the cheapest plan; no budget below it can be kept."""
        return float(sum(costs.min() for costs in self.costs))

    @property
    def dearest(self) -> float:
        """Cost of the plan whose every option is the dearest."""
        return float(sum(costs.max() for costs in self.costs))

    def within(self, budget: float) -> list[int]:
        """The option of every item in the best plan that costs at most `budget`.

        Raises:
            ValueError: even the cheapest plan costs more.
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
        """What a plan costs, to the last digit and not in cells."""
        return float(sum(costs[o] for costs, o in zip(self.costs, plan, strict=True)))

    def loss(self, plan: Sequence[int]) -> float:
        """The summed loss of a plan."""
        return float(sum(losses[o] for losses, o in zip(self.losses, plan, strict=True)))


def solve_choices(costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]]) -> Choices:
    """Fill the table for items whose options have these costs and losses.

    Args:
        costs: for each item the cost of each option; whole numbers are kept exact.
        losses: the same shape; any finite numbers.
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
    """The greatest common divisor of whole costs if the table may be that fine, else a share of the
    dearest plan."""
    values = np.concatenate(above)
    dearest = float(sum(each.max() for each in above))
    coarse = dearest / MAX_CELLS or 1.0
    if bool((values == np.round(values)).all()):
        divisor = float(np.gcd.reduce(values.astype(np.int64))) or 1.0
        return max(divisor, coarse)
    return coarse


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
    """Plans along the front, the cheapest first, each once.

    Args:
        extra: budgets to try beside those spread evenly from the cheapest to the dearest plan.
    """
    even = np.linspace(choices.cheapest, choices.dearest, POINTS).tolist()
    plans: list[list[int]] = []
    for budget in sorted({*even, *extra}):
        plan = choices.within(budget)
        if plan not in plans:
            plans.append(plan)
    return plans


def spread(count: int, wanted: int) -> Sequence[int]:
    """`wanted` of `count` places, evenly spread, the ends included."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(wanted, count))})
