"""Cost of caching a teacher's outputs.

    flops     rows · teacher on a text of mean length, and on a label word
    bytes     predictions · (4 · columns, or a record of a codec)
              + states · tokens · hidden size · (2 or 4)

The step counts every token and checks the free disk space before it begins; the plan assumes that
all rows have the mean length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attar.artifacts import MIB
from attar.errors import UsageError
from attar.planning import OPEN_SECONDS, RUNTIME_MIB, PlanContext
from attar.step import StepPlan
from attar.training.cache_config import UNIFORM, CacheStep, Sparse, States
from attar.training.plan import count_taught, planned_teacher
from attar.training.teaching.cache import cached_shape, kept_states
from attar.training.teaching.header import Content, codec_of
from attar.training.update.precision import choose_precision, device_here

WORD_TOKENS = 4
"""Assumed number of tokens of a label word, including the end token; most words are shorter."""
STACKS = ("encoder", "decoder")


def plan_cache(config: CacheStep, context: PlanContext) -> StepPlan:
    """Plan a cache: the teacher reads every row once.

    Raises:
        ModelError: the teacher does not have the requested hidden states.
    """
    texts, teacher = context.texts, planned_teacher(config.teacher, context)
    head = texts.head(config.data, config.objective)
    shape = cached_shape(config, teacher.model.cost.model)
    if problem := config.misfit(predicts_words=head.words is not None):
        raise UsageError(f"{context.name}: {problem}")
    sparse = config.sparse(is_running=texts.loaded(config.data).kind.is_running)
    kept = Content(config.logits, kept_states(config, context.name, shape), sparse)
    context.caches[context.name] = replace(teacher, cache=context.name, kept=kept)
    model = replace(teacher.model, max_length=config.max_length)
    chunks = texts.chunks_of(config.data)
    if chunks is None:
        rows, tokens = count_taught(texts, config.data, model)
    else:
        rows, tokens = chunks.chunks, chunks.mean_tokens
    written = WORD_TOKENS if texts.has_classes(config.data) and head.words else None
    flops = rows * model.cost.flops(1, tokens, written)
    plain = model.cost.model.config.to_dict()
    text_mib = model.activation_mib(tokens)
    device = device_here()
    precision = choose_precision(config.precision, device).name
    return StepPlan(
        flops=flops,
        memory_mib=RUNTIME_MIB + model.size_mib + config.batch_size * text_mib,
        disk_mib=cache_bytes(config, plain, head.num_labels, rows, tokens, written, sparse) / MIB,
        seconds=OPEN_SECONDS + context.seconds(forward=flops, precision=precision, device=device),
        counts={"rows": rows},
        passes=1,
        texts_at_once=config.batch_size,
        text_mib=text_mib,
        lowered_by="batch_size",
        is_estimate=chunks is not None and not chunks.is_exact,
        note=""
        if sparse is None
        else (
            f"{codec_of(sparse, plain['vocab_size']).record_bytes} bytes per token: {sparse.said()}"
        ),
    )


def cache_bytes(
    step: CacheStep,
    config: Mapping[str, Any],
    num_labels: int | None,
    rows: int,
    tokens: int,
    written: int | None = None,
    sparse: Sparse | None = None,
) -> int:
    """Size of the outputs for `rows` texts with `tokens` tokens in total, in bytes.

    Args:
        config: of the teacher, as plain data.
        num_labels: number of outputs of a classification head; None: a token is predicted at every
            position.
        written: number of target tokens, if these are predicted; None: as many as are read.
        sparse: how token distributions are compressed; None: all logits are stored.
    """
    hidden = config.get("hidden_size") or config.get("d_model") or config["n_embd"]
    value = 2 if step.dtype == "bf16" else 4
    written = tokens if written is None else written
    reads_first = bool(config.get("is_encoder_decoder"))
    lengths = {"encoder": tokens, "decoder": written if reads_first else tokens}
    asked = step.hidden_states
    stacks = STACKS if reads_first else STACKS[:1]
    by_stack = asked if isinstance(asked, dict) else dict.fromkeys(stacks, asked)
    kept = sum(lengths[stack] * _count(states) for stack, states in by_stack.items())
    per_row = kept * hidden * value
    if step.logits:
        words = config["vocab_size"]
        record = 4 * words if sparse is None else codec_of(sparse, words).record_bytes
        per_row += written * record if num_labels is None else 4 * num_labels
    return rows * per_row


def _count(states: States) -> int:
    if isinstance(states, str):
        uniform = UNIFORM.fullmatch(states)
        assert uniform is not None, "the settings were checked"
        return int(uniform[1]) + 1
    return len(states)
