"""Estimates the cost of zero-shot tasks. All texts are built and tokenized, so the numbers of
requests and tokens are exact. Whether a model attends to its tokens, so that shared prefixes are
read once, is assumed from transformers and verified when the step runs.

    flops    linear layers: every token · attention · head: only predicted positions
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.artifacts import MIB
from attar.evaluation.config import EvaluateStep
from attar.evaluation.zero_shot.rows import TaskRows, read_tasks
from attar.evaluation.zero_shot.run import groups_of, requests_of
from attar.models.cost import Cost
from attar.models.sources.references import resolve_model
from attar.planning import OPEN_SECONDS, RUNTIME_MIB, Head, ModelPlan, PlanContext
from attar.scoring.continuations import Continuation, Groups, common, encode_pairs, most_tokens
from attar.step import StepPlan
from attar.tasks.table import CAUSAL_LM

HARNESS_WORK = {"ours": (1, 0), "lm_eval": (0, 1), "both": (1, 1)}
"""How often requests are processed with shared prefixes, and in full."""


@dataclass(frozen=True)
class Read:
    requests: int
    tokens: int
    """Tokens, with shared prefixes counted once."""
    attended: int
    """Pairs of attending tokens, with shared prefixes counted once."""
    whole_tokens: int
    """Tokens, with every text counted in full."""
    predictions: int

    @classmethod
    def of(cls, requests: Sequence[Continuation], groups: Groups) -> Read:
        lengths = [len(request.fed) for request in requests]
        tokens = attended = 0
        for group in groups:
            shared = common(requests, group)
            tokens += shared + sum(lengths[i] - shared for i in group)
            attended += shared**2 + sum((lengths[i] - shared) * lengths[i] for i in group)
        predictions = sum(len(request.targets) for request in requests)
        return cls(len(requests), tokens, attended, sum(lengths), predictions)


def plan_zero_shot(config: EvaluateStep, context: PlanContext) -> StepPlan:
    """Plan an evaluation on zero-shot tasks.

    Raises:
        DataError: rows are missing or cannot be used.
        ModelError: a model does not predict the next token.
    """
    if config.hub and context.flops_per_s is not None:  # planned for another machine
        note = "the tasks' rows are on the hub and not read here, so this step's work is left out"
        return StepPlan(memory_mib=RUNTIME_MIB, disk_mib=1, seconds=OPEN_SECONDS, note=note)
    tasks = read_tasks(config, context.recipe_folder)
    groups = groups_of(tasks)
    flops, told, largest = 0, [], 0
    for word in config.models:
        model = context.model(word, Head(None, CAUSAL_LM), 128)
        read = Read.of(_requests(word, model, tasks, context), groups)
        shared, whole = HARNESS_WORK[config.harness]
        shares = not getattr(model.cost.model, "_is_stateful", False)
        flops += shared * _flops(model.cost, read, is_shared=shares)
        flops += whole * _flops(model.cost, read, is_shared=False)
        once = f"{read.tokens:,} of {read.whole_tokens:,}" if shares else f"{read.whole_tokens:,}"
        told.append(f"{word} reads {once} tokens")
        largest = max(largest, model.cost.num_params)
    count = sum(map(len, groups))
    return StepPlan(
        flops=flops,
        memory_mib=RUNTIME_MIB + 4 * largest / MIB,
        disk_mib=1,
        seconds=2 * OPEN_SECONDS * len(config.models) + context.seconds(forward=flops),
        counts={"requests": count},
        note=f"{count:,} requests for each model; {'; '.join(told)}",
    )


def _requests(
    word: str, model: ModelPlan, tasks: Mapping[str, TaskRows], context: PlanContext
) -> list[Continuation]:
    pairs = [pair for rows in tasks.values() for each in rows.questions for pair in each.pairs]
    if word not in context.models:  # a folder, whose task is known
        return requests_of(word, resolve_model(word, {}, context.recipe_folder), pairs)
    config: Any = model.cost.model.config
    limit = most_tokens(config, model.tokenizer_folder)
    return encode_pairs(model.tokenizer_folder, pairs, limit)


def _flops(cost: Cost, read: Read, *, is_shared: bool) -> int:
    if not is_shared:
        return read.requests * cost.flops(1, max(1, round(read.whole_tokens / read.requests)))
    # for one text of T tokens, FLOPs are a·T + b·T²: two lengths determine a and b
    one, two = cost.flops(1, 1), cost.flops(1, 2)
    squared = (two - 2 * one) // 2
    table: Any = cost.model.get_output_embeddings()
    head = 2 * table.weight.numel()
    return (one - squared - head) * read.tokens + head * read.predictions + squared * read.attended
