"""Mixed precision: chooses the bit width of each tensor under a budget, as a knapsack problem.

    average_bits        weights: minimum total sensitivity with Σ bits·values ≤ budget·Σ values
    max_accuracy_drop   the same Pareto front, from the cheapest plan upwards to the first whose
                        measured drop is within the limit
    max_latency_ms      Linears: the least sensitive set runs in int8 so that the predicted latency
                        is within the budget; the others stay float

*What a budget covers.* Embedding tables are treated like other weights, unless the recipe sets
`embedding_bits`. Below 8 bits, fewer activation bits save neither size nor time, so activations do
not count towards the budget. If `activation_bits` lies within `widths`, it is the mean bit width of
the sites, weighted by their number of values on the calibration texts, and the same optimization
distributes it.

*Latency.* A site and the Linears that read it are either all int8 or all float. A site that no
Linear reads stays float, because quantizing it saves no time. Embedding tables stay quantized to
reduce size.

*Plans are verified.* For `average_bits`, the mixed plan, the uniform plan and their two
combinations (mixed weights with uniform sites, and the reverse) are each evaluated on the
calibration texts, and the plan with the smallest output error is chosen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from attar.artifacts import key_of, read_json, write_json
from attar.errors import ModelError, UsageError
from attar.extras import require
from attar.models.load import LoadedModel
from attar.models.simulated.quantized import quantizing
from attar.quantization.config import Budget, QuantizeSettings
from attar.quantization.method import BitPlan, Problem
from attar.quantization.methods import method_of
from attar.quantization.precision.cost import Weight, average_bits, planned_mib, weights_of
from attar.quantization.precision.knapsack import Choices, Point, front, solve_choices, spread
from attar.quantization.precision.latency_plan import plan_within_latency
from attar.quantization.precision.tensor_errors import (
    Probe,
    site_sensitivities,
    weight_sensitivities,
)
from attar.quantization.precision.together import held_out_judge, quantize_together
from attar.scoring.judging import Judge
from attar.step import StepContext

MEASURED_POINTS = 5
"""Number of points of the front that are evaluated, besides the chosen one."""
PLAN_FILE = "plan.json"
"""File in the scratch folder with the chosen plan, for resuming the step. Measuring the latency
again could give another plan, which would not match the tensors of the training checkpoint."""
PLAN = TypeAdapter(BitPlan)
Planned = tuple[BitPlan, dict[str, Any]]
"""A plan, and the step's `budget` metrics."""


def check_budget(
    config: QuantizeSettings, loaded: LoadedModel, context: StepContext
) -> Judge | None:
    """Check that the budget can be measured, before the expensive work starts.

    Returns: the judge that measures the drop, for `max_accuracy_drop`; otherwise None.
    Raises:
        ModelError: the budget requires a classifier and the model is generative, or its classes
            differ from the data's.
        DataError: too few held-out rows for the limit, or an unknown metric.
        UsageError: OpenVINO, which is needed to measure latency, is not installed.
    """
    budget = config.budget
    if budget is None or budget.average_bits is not None:
        return None
    limit = "max_latency_ms" if budget.max_latency_ms is not None else "max_accuracy_drop"
    if loaded.task is not None and loaded.task.has_language_head:
        raise ModelError(
            f"{context.name}: budget {limit} is for models with a classification or regression "
            f"head, this one {loaded.task.answers}; use average_bits"
        )
    if budget.max_latency_ms is not None:
        require("openvino", "export")
        return None
    return held_out_judge(config, loaded, context)


def keep_plan(planned: Planned, config: QuantizeSettings, context: StepContext) -> None:
    """Save a plan for resuming the step."""
    plan, metrics = planned
    context.scratch.mkdir(parents=True, exist_ok=True)
    content = {"key": _key(config, context), "plan": PLAN.dump_python(plan, mode="json")}
    write_json(context.scratch / PLAN_FILE, {**content, "metrics": metrics})


def kept_plan(config: QuantizeSettings, context: StepContext) -> Planned | None:
    """Load the plan of an interrupted run of the same step; None if there is none.

    Raises:
        ArtifactError: the file is damaged.
    """
    file = context.scratch / PLAN_FILE
    if not file.is_file():
        return None
    content = read_json(file)
    if content["key"] != _key(config, context):
        return None
    return PLAN.validate_python(content["plan"]), content["metrics"]


def _key(config: QuantizeSettings, context: StepContext) -> str:
    return key_of({"settings": config.model_dump(mode="json"), "seed": context.seed})


def plan_bits(problem: Problem, held_out: Judge | None) -> Planned:
    """Find the best plan within the budget, or load the plan of an interrupted run.

    Args:
        problem: with float weights and uniform bit widths.
        held_out: result of `check_budget`.
    Returns: the plan, and the step's `budget` metrics: the limit, the choice, and the Pareto front.
    Raises:
        UsageError: no plan meets the budget; the message gives the closest one.
    """
    config, context = problem.config, problem.context
    kept = kept_plan(config, context)
    if kept is not None:
        return kept
    started = time.perf_counter()
    budget = config.budget
    probe = Probe.of(problem, method_of(config))
    if budget.max_latency_ms is not None:
        points, more = plan_within_latency(probe, budget.max_latency_ms, MEASURED_POINTS)
    else:
        points, more = _plan_widths(probe, budget, held_out)
    chosen = next(point for point in points if point.is_chosen)
    metrics = {
        "limit": budget.model_dump(exclude_none=True, exclude={"widths"}),
        "widths": list(budget.widths),
        "average_bits": chosen.average_bits,
        "size_mib": chosen.size_mib,
        "predicted_latency_ms": chosen.latency_ms,
        "output_error": chosen.output_error,
        "drop": chosen.drop,
        "is_uniform": chosen.is_uniform,
        "float_tensors": sorted(chosen.plan.float_tensors),
        "loss": probe.loss,
        "examples": probe.problem.calibration.num_examples,
        "points": [point.as_row() for point in points],
        "seconds": time.perf_counter() - started,
        **more,
    }
    keep_plan((chosen.plan, metrics), config, context)
    return chosen.plan, metrics


@dataclass(frozen=True)
class _Widths:
    """The solved knapsack of weights, and the plans that it gives."""

    probe: Probe
    base: BitPlan
    """The recipe's plan, with the chosen widths of sites."""
    weights: Sequence[Weight]
    widths: Sequence[int]
    choices: Choices

    @property
    def numel(self) -> int:
        return sum(weight.numel for weight in self.weights)

    def point(self, options: Sequence[int]) -> Point:
        names = [weight.fqn for weight in self.weights]
        bits = {name: self.widths[o] for name, o in zip(names, options, strict=True)}
        return self.counted(replace(self.base, of_weights=bits), self.choices.loss(options))

    def counted(self, plan: BitPlan, loss: float | None, is_uniform: bool = False) -> Point:
        mean = average_bits(plan, list(self.weights))
        size = planned_mib(self.probe.model, plan)
        return Point(plan, mean, loss, size, mean, is_uniform=is_uniform)


def _plan_widths(
    probe: Probe, budget: Budget, held_out: Judge | None
) -> tuple[list[Point], dict[str, Any]]:
    config, plan = probe.problem.config, probe.problem.plan
    weights = weights_of(probe.model)
    if config.embedding_bits is not None:
        weights = [weight for weight in weights if weight.kind != "embedding"]
    widths = sorted(set(budget.widths))
    of_weights = weight_sensitivities(probe, weights, widths)
    of_sites = _site_widths(probe, widths)
    choices = solve_choices(
        [[weight.numel * width for width in widths] for weight in weights],
        [list(of_weights[weight.fqn].values()) for weight in weights],
    )
    table = _Widths(probe, replace(plan, of_sites=of_sites), weights, widths, choices)
    if budget.average_bits is not None:
        points = _within_average(table, budget.average_bits)
    else:
        assert budget.max_accuracy_drop is not None and held_out is not None
        points = _within_drop(table, budget.max_accuracy_drop, held_out)
    return points, {
        "sensitivities": {
            name: {str(bits): loss for bits, loss in by_width.items()}
            for name, by_width in of_weights.items()
        }
    }


def _site_widths(probe: Probe, widths: Sequence[int]) -> dict[str, int]:
    """Bits of each site, with a mean over values of at most `activation_bits`; empty if `widths`
    has no larger width."""
    mean = probe.problem.plan.bits.activation
    if not widths[0] <= mean < widths[-1]:
        return {}
    statistics = probe.problem.calibration.statistics
    found = site_sensitivities(probe, list(statistics), widths)
    counts = [seen.histogram.num_values for seen in statistics.values()]
    choices = solve_choices(
        [[count * width for width in widths] for count in counts],
        [list(found[site.name].values()) for site in statistics],
    )
    options = choices.within(mean * sum(counts))
    return {site.name: widths[option] for site, option in zip(statistics, options, strict=True)}


def _within_average(table: _Widths, limit: float) -> list[Point]:
    """The Pareto front, with the best plan within the limit (mixed or uniform) marked."""
    target = limit * table.numel
    options = front(table.choices, extra=[target])
    best = table.choices.within(target)
    points = [table.point(each) for each in options]
    place = options.index(best)
    rivals = _measured(table.probe, [points[place], *_rivals(table, points[place], limit)])
    points[place] = rivals[0]
    chosen = min(rivals, key=lambda point: point.output_error or 0.0)
    rivals = [replace(point, is_chosen=point is chosen) for point in rivals]
    points[place] = rivals[0]
    places = [i for i in spread(len(points), MEASURED_POINTS) if i != place]
    for i, point in zip(places, _measured(table.probe, [points[i] for i in places]), strict=True):
        points[i] = point
    return [*points, *rivals[1:]]


def _rivals(table: _Widths, mixed: Point, limit: float) -> list[Point]:
    """The uniform plan within the limit, and its two combinations with the mixed plan."""
    narrower = [width for width in table.widths if width <= limit]
    same = {weight.fqn: narrower[-1] for weight in table.weights}
    uniform = replace(table.base, of_weights=same)
    rivals = [table.counted(uniform, None, is_uniform=not table.base.of_sites)]
    if table.base.of_sites:
        rivals.append(table.counted(replace(uniform, of_sites={}), None, is_uniform=True))
        rivals.append(table.counted(replace(mixed.plan, of_sites={}), None))
    return rivals


def _measured(probe: Probe, points: Sequence[Point]) -> list[Point]:
    return [
        replace(point, output_error=quantize_together(probe, point.plan).output_error)
        for point in points
    ]


def _within_drop(table: _Widths, limit: float, held_out: Judge) -> list[Point]:
    """The front from the cheapest plan up to the first one within the limit."""
    reference = held_out.value(table.probe.model, "float")
    points = [table.point(options) for options in front(table.choices)]
    with table.probe.problem.context.progress.task("plans on held-out rows", len(points)) as task:
        for place, point in enumerate(points):
            made = quantize_together(table.probe, point.plan)
            with quantizing(made.model, made.grids):
                value = held_out.value(made.model, f"{point.average_bits:.2f} bits")
            drop = reference - value
            points[place] = replace(
                point,
                output_error=made.output_error,
                drop=drop,
                is_chosen=drop <= limit + 1e-9,
            )
            task.advance(note=f"{point.average_bits:.2f} bits lose {drop:.4f}")
            if points[place].is_chosen:
                return points
    best = min(points, key=lambda point: point.drop or 0.0)
    raise UsageError(
        f"no plan keeps {held_out.metric} within {limit:g} of the float model's {reference:.4f} on "
        f"{len(held_out.labels)} held-out rows: the best loses {best.drop:.4f} at "
        f"{best.average_bits:.2f} bits on average; allow a larger drop, raise activation_bits "
        f"(now {table.base.bits.activation}) or choose another method"
    )
