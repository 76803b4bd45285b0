"""Estimates the cost of a fold: two models in memory, and two forward passes over a few texts."""

from __future__ import annotations

from attar.models.cost import Cost
from attar.planning import OPEN_SECONDS, RUNTIME_MIB, ModelPlan, PlanContext
from attar.reparameterization.config import FoldStep
from attar.reparameterization.fold import folded
from attar.step import StepPlan


def plan_fold(config: FoldStep, context: PlanContext) -> StepPlan:
    """Plan a fold.

    Raises:
        ModelError: there is no chain to fold.
    """
    texts, source = context.texts, context.model(config.model, None, 128)
    smaller = Cost(folded(source.cost.model).model)
    model = ModelPlan(smaller, source.tokenizer_folder, 4.0, source.max_length)
    context.models[context.name] = model
    rows, tokens = texts.count(config.data, "train", model)
    compared = min(rows, config.examples)
    flops = compared * (source.cost.flops(1, tokens) + smaller.flops(1, tokens))
    return StepPlan(
        num_params=smaller.num_params,
        flops=flops,
        memory_mib=RUNTIME_MIB + source.size_mib + model.size_mib,
        disk_mib=model.size_mib,
        seconds=OPEN_SECONDS + context.seconds(forward=flops),
        counts={"num_params": smaller.num_params, "certificate.examples": compared},
        passes=2,
    )
