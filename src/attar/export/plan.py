"""Estimates the cost of an export: writing the files, and a parity check of three models."""

from __future__ import annotations

from attar.artifacts import MIB
from attar.export.config import ExportStep
from attar.export.run import data_of_model
from attar.planning import RUNTIME_MIB, PlanContext
from attar.step import StepPlan

SECONDS = 12.0
"""Time to write and compile a model, which hardly depends on its size."""
COMPARED = 3
"""Number of models in the parity check: float, simulated and deployed."""


def plan_export(config: ExportStep, context: PlanContext) -> StepPlan:
    model = context.model(config.model, None, 128)
    context.models[context.name] = model
    rows, tokens = config.parity.examples, model.max_length
    if data := config.data or data_of_model(config.model, context.recipe):
        there, tokens = context.texts.count(data, "validation", model)
        rows = min(rows, there)
    flops = COMPARED * rows * model.cost.flops(1, tokens)
    return StepPlan(
        num_params=model.cost.num_params,
        flops=flops,
        memory_mib=RUNTIME_MIB + 4 * model.cost.num_params * 4 / MIB,
        disk_mib=model.size_mib,
        seconds=SECONDS + context.seconds(forward=flops),
        counts={"parity.examples": rows, "num_params": model.cost.num_params},
        passes=COMPARED,
    )
