"""What making rows will cost: a row of a forward pass for every word that some copy replaces."""

from __future__ import annotations

from attar.artifacts import MIB
from attar.data.augmented import with_copies
from attar.distillation.config import AugmentStep
from attar.planning import OPEN_SECONDS, RUNTIME_MIB, PlanContext
from attar.step import StepPlan
from attar.training.update.precision import choose_precision, device_here

BYTES_A_TOKEN = 4 / 3
"""Of a made row: about four bytes of text, a third when packed."""


def plan_augment(config: AugmentStep, context: PlanContext) -> StepPlan:
    """Plan an augmentation: about a token a word, and three tensors of scores a row."""
    model = context.model(config.model, None, config.max_length)
    rows, tokens = context.texts.count(config.data, "train", model)
    data = context.texts.loaded(config.data)
    context.texts.add(context.name, with_copies(data, config.copies, config.keep_labels))
    asked = 1 - (1 - config.probability) ** config.copies
    flops = round(asked * rows * tokens * model.cost.flops(1, tokens))
    scores = 3 * 4 * config.batch_tokens / tokens * model.cost.model.config.vocab_size
    device = device_here()
    precision = choose_precision(config.precision, device).name
    return StepPlan(
        name=context.name,
        run=config.run,
        num_params=None,
        flops=flops,
        memory_mib=RUNTIME_MIB + model.size_mib + scores / MIB,
        disk_mib=rows * config.copies * tokens * BYTES_A_TOKEN / MIB,
        seconds=OPEN_SECONDS + context.seconds(forward=flops, precision=precision, device=device),
        counts={"rows_in": rows, "rows_out": rows * config.copies},
    )
