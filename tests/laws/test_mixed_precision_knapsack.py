"""Laws of the knapsack that gives out bits, on instances small enough to try every plan."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.quantization.precision import knapsack
from attar.quantization.precision.knapsack import solve_choices

WIDTHS = (2, 3, 4, 8)
ROUNDING = 1e-9
"""Sums of a few float64 losses in another order."""

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)


def instance(counts: list[int], seed: int) -> tuple[list[list[float]], list[list[float]]]:
    """Costs in bits and losses that mostly, but not always, fall with the width."""
    rng = np.random.default_rng(seed)
    costs = [[float(count * width) for width in WIDTHS] for count in counts]
    losses = [sorted(rng.random(len(WIDTHS)), reverse=rng.random() < 0.9) for _ in counts]
    return costs, [list(map(float, each)) for each in losses]


def best_of_all(costs, losses, budget: float) -> float:
    """The least loss by trying every plan."""
    plans = itertools.product(*(range(len(each)) for each in costs))
    return min(
        sum(x[o] for x, o in zip(losses, plan, strict=True))
        for plan in plans
        if sum(c[o] for c, o in zip(costs, plan, strict=True)) <= budget
    )


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, st.floats(0, 1))
def test_the_plan_loses_no_more_than_the_best_of_all_plans(counts, seed, share):
    costs, losses = instance(counts, seed)
    choices = solve_choices(costs, losses)
    budget = choices.cheapest + share * (choices.dearest - choices.cheapest)
    plan = choices.within(budget)
    assert choices.cost(plan) <= budget
    assert choices.loss(plan) == pytest.approx(best_of_all(costs, losses, budget), abs=ROUNDING)


@settings(max_examples=40, deadline=None)
@given(sizes, seeds)
def test_a_larger_budget_never_loses_more(counts, seed):
    choices = solve_choices(*instance(counts, seed))
    budgets = np.linspace(choices.cheapest, choices.dearest, 13)
    losses = [choices.loss(choices.within(budget)) for budget in budgets]
    assert all(b <= a + ROUNDING for a, b in itertools.pairwise(losses))


def test_equal_tensors_get_equal_bits():
    costs = [[10.0 * width for width in WIDTHS]] * 4
    losses = [[4.0**-width for width in WIDTHS]] * 4
    choices = solve_choices(costs, losses)
    for option, width in enumerate(WIDTHS):
        assert choices.within(4 * 10 * width) == [option] * 4


def test_of_options_that_lose_the_same_the_cheapest_is_taken():
    """Also when what they lose is nothing, and in whatever order they are given."""
    choices = solve_choices([[4.0, 2.0, 3.0], [2.0, 4.0]], [[0.0, 0.0, 0.0], [5.0, 1.0]])
    assert choices.within(choices.dearest) == [1, 1]
    assert choices.cost(choices.within(6)) == 6


def test_a_budget_below_the_cheapest_plan_is_refused():
    choices = solve_choices([[2.0, 4.0], [2.0, 4.0]], [[1.0, 0.0]] * 2)
    with pytest.raises(ValueError, match=r"cheapest plan costs 4\.0, the budget is 3\.9"):
        choices.within(3.9)


@settings(max_examples=40, deadline=None)
@given(sizes, seeds, st.floats(0, 1))
def test_a_coarse_table_still_keeps_the_budget(counts, seed, share):
    """Costs that share no divisor are rounded up to cells: some budget may go unused, none is
    exceeded."""
    costs, losses = instance(counts, seed)
    costs = [[cost * 1.000123 + 0.1 for cost in each] for each in costs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knapsack, "MAX_CELLS", 64)
        choices = solve_choices(costs, losses)
    budget = choices.cheapest + share * (choices.dearest - choices.cheapest)
    plan = choices.within(budget)
    assert choices.cost(plan) <= budget + ROUNDING
    assert choices.loss(plan) >= best_of_all(costs, losses, budget + ROUNDING) - ROUNDING


def test_a_table_of_cells_is_no_larger_than_promised():
    counts = [11_720_448, 147_457, 589_823]
    costs = [[float(count * width) for width in WIDTHS] for count in counts]
    choices = solve_choices(costs, [[3.0, 2.0, 1.0, 0.0]] * 3)
    assert choices.taken.shape[1] <= knapsack.MAX_CELLS + len(counts) + 1
