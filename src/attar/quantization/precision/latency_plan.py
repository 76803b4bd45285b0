"""Chooses the Linears that run in int8 so that one text meets the latency budget.

Each group of Linears that read the same site is a knapsack item with two options:

    float   its milliseconds in float, no loss
    int8    its milliseconds in int8, and the summed sensitivity of its site and weights

The knapsack gives the plan of minimum loss within the budget minus the time of everything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attar.errors import UsageError
from attar.models.structure.sites import Site
from attar.quantization.method import BitPlan
from attar.quantization.precision.cost import average_bits, planned_mib, weights_of
from attar.quantization.precision.knapsack import Choices, Point, front, solve_choices, spread
from attar.quantization.precision.latency import (
    Group,
    Latencies,
    groups_of,
    measure_latencies,
    one_text,
)
from attar.quantization.precision.tensor_errors import (
    Probe,
    site_sensitivities,
    weight_sensitivities,
)
from attar.quantization.precision.together import quantize_together

FLOAT, INT8 = 0, 1


@dataclass(frozen=True)
class _Precisions:
    """The solved knapsack of groups, and the plans that it gives."""

    probe: Probe
    groups: Sequence[Group]
    unread: Sequence[Site]
    """Sites that no Linear reads."""
    latencies: Latencies
    choices: Choices

    def point(self, options: Sequence[int]) -> Point:
        names = {site.name for site in self.unread}
        for group, option in zip(self.groups, options, strict=True):
            if option == FLOAT:
                names |= {group.site.name, *group.linears}
        plan = replace(self.probe.problem.plan, float_tensors=frozenset(names))
        latency = self.latencies.rest_ms + self.choices.cost(options)
        mean = average_bits(plan, weights_of(self.probe.model))
        size = planned_mib(self.probe.model, plan)
        return Point(plan, latency, self.choices.loss(options), size, mean, latency_ms=latency)


def plan_within_latency(
    probe: Probe, limit_ms: float, measured_points: int
) -> tuple[list[Point], dict[str, Any]]:
    """The Pareto front of latency and loss with the chosen plan marked, and the measured timings.

    Raises:
        UsageError: the model is predicted to be too slow even with every Linear in its faster form.
    """
    table = _table(probe)
    latencies, choices = table.latencies, table.choices
    left = limit_ms - latencies.rest_ms
    if left < choices.cheapest:
        fastest = latencies.rest_ms + choices.cheapest
        raise UsageError(
            f"max_latency_ms is {limit_ms:g}, and the fastest possible here is {fastest:.2f} ms "
            f"(float {latencies.model_ms:.2f} ms; {latencies.rest_ms:.2f} ms of it does not "
            "depend on the bit width); allow more, or take a smaller model"
        )
    best = choices.within(left)
    options = front(choices, extra=[left])
    points = [table.point(each) for each in options]
    place = options.index(best)
    for i in {place, *spread(len(points), measured_points)}:
        error = quantize_together(probe, points[i].plan).output_error
        points[i] = replace(points[i], output_error=error, is_chosen=i == place)
    return points, {
        "latency": {
            "float_ms": latencies.model_ms,
            "rest_ms": latencies.rest_ms,
            "num_int8": sum(
                len(group.linears)
                for group, option in zip(table.groups, best, strict=True)
                if option == INT8
            ),
            "num_linears": sum(len(group.linears) for group in table.groups),
            "linears": latencies.as_rows(),
        }
    }


def _table(probe: Probe) -> _Precisions:
    problem, model = probe.problem, probe.model
    sites = list(problem.calibration.statistics)
    assert problem.task is not None
    inputs = one_text(model, problem.task.input_names)
    groups = groups_of(model, sites, inputs)
    latencies = measure_latencies(model, groups, inputs, problem.context)
    losses = _losses(probe, groups, problem.plan)
    choices = solve_choices(
        [
            [latencies.group_ms(group, is_int8=False), latencies.group_ms(group, is_int8=True)]
            for group in groups
        ],
        [[0.0, losses[group.site.name]] for group in groups],
    )
    read = {group.site for group in groups}
    unread = [site for site in sites if site not in read]
    return _Precisions(probe, groups, unread, latencies, choices)


def _losses(probe: Probe, groups: Sequence[Group], plan: BitPlan) -> Mapping[str, float]:
    """Name of a group's site → total sensitivity of its tensors at the recipe's bits."""
    sites = [group.site for group in groups]
    width = plan.bits.activation
    of_sites = site_sensitivities(probe, sites, [width])
    names = {name for group in groups for name in group.linears}
    linears = [weight for weight in weights_of(probe.model) if weight.fqn in names]
    of_weights = weight_sensitivities(probe, linears, [plan.bits.weight])
    return {
        group.site.name: of_sites[group.site.name][width]
        + sum(of_weights[name][plan.bits.weight] for name in group.linears if name in of_weights)
        for group in groups
    }
