"""Estimates the cost of an evaluation: a forward pass over the split for each model, and the
timing. An extrapolation only reads a few hundred numbers and loads no model."""

from __future__ import annotations

from itertools import product

from attar.artifacts import MIB
from attar.evaluation.config import EvaluateStep, ExtrapolateStep
from attar.evaluation.inputs import check_room, fixed_tokens, room_in, timed_tokens
from attar.evaluation.zero_shot.plan import plan_zero_shot
from attar.planning import OPEN_SECONDS, RUNTIME_MIB, PlanContext
from attar.scoring.matching import labelled_split
from attar.step import StepPlan

FIT_SECONDS = 0.0005
"""Time per bootstrap resample of a law."""


def plan_evaluate(config: EvaluateStep, context: PlanContext) -> StepPlan:
    """Plan an evaluation.

    Raises:
        DataError: the split is missing, or rows have no label.
        UsageError: a length to time exceeds a model's maximum length.
    """
    if config.data is None:
        return plan_zero_shot(config, context)
    texts = context.texts
    models = [context.model(word, texts.head(config.data), 128) for word in config.models]
    split = labelled_split(texts.loaded(config.data), config.split)
    flops = 0
    # generative models are timed while generating, and prefill and decode at one batch size
    is_written = texts.head(config.data).words is not None
    speed = None if is_written else config.speed
    for word, model in zip(config.models, models, strict=True):
        rows, tokens = texts.count(config.data, config.split, model)
        flops += rows * model.cost.flops(1, tokens)
        if speed is not None:
            room = room_in(model.cost.model.config.to_dict())
            check_room(room, fixed_tokens(config), repr(word))
            calls = (speed.rounds + 1) * speed.calls
            shapes = product(speed.batch_sizes, timed_tokens(config, [tokens]))
            flops += calls * sum(model.cost.flops(batch, length) for batch, length in shapes)
        if config.speed is not None and is_written:
            calls = (config.speed.rounds + 1) * config.speed.calls
            flops += calls * model.cost.flops(min(config.speed.batch_sizes), fixed_tokens(config))
    return StepPlan(
        flops=flops,
        memory_mib=RUNTIME_MIB + 4 * sum(model.cost.num_params for model in models) / MIB,
        disk_mib=1,
        seconds=2 * OPEN_SECONDS * len(models) + context.seconds(forward=flops),
        counts={"data.rows": len(split)},
    )


def plan_extrapolate(config: ExtrapolateStep, context: PlanContext) -> StepPlan:
    seconds = FIT_SECONDS * config.fit.bootstrap * len(config.models)
    return StepPlan(memory_mib=RUNTIME_MIB, disk_mib=1, seconds=seconds)
