"""What an evaluation will cost: a forward pass over the split for each model, and the timing."""

from __future__ import annotations

from attar.artifacts import MIB
from attar.evaluation.config import EvaluateStep
from attar.planning import OPEN_SECONDS, RUNTIME_MIB, PlanContext
from attar.scoring.matching import labelled_split
from attar.step import StepPlan


def plan_evaluate(config: EvaluateStep, context: PlanContext) -> StepPlan:
    """Plan an evaluation.

    Raises:
        DataError: there is no such split, or rows lack their label.
    """
    texts = context.texts
    models = [context.model(word, texts.head(config.data), 128) for word in config.models]
    split = labelled_split(texts.loaded(config.data), config.split)
    flops = 0
    for model in models:
        rows, tokens = texts.count(config.data, config.split, model)
        flops += rows * model.cost.flops(1, tokens)
        if config.speed is not None:
            calls = (config.speed.rounds + 1) * config.speed.calls
            flops += calls * sum(
                model.cost.flops(batch, config.speed.tokens) for batch in config.speed.batch_sizes
            )
    return StepPlan(
        name=context.name,
        run=config.run,
        num_params=None,
        flops=flops,
        memory_mib=RUNTIME_MIB + 4 * sum(model.cost.num_params for model in models) / MIB,
        disk_mib=1,
        seconds=2 * OPEN_SECONDS * len(models) + context.seconds(forward=flops),
        counts={"data.rows": len(split)},
    )
