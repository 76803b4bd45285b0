"""Cost of caching a teacher's outputs.

    flops     rows · teacher on a text of mean length, and on a label word
    bytes     predictions · (4 · columns, or a record of a codec)
              + states · tokens · hidden size · (2 or 4)

The step counts every token and checks the free disk space before it begins; the plan assumes that
all rows have the mean length.
"""

from __future__ import annotations

from dataclasses import replace

from attar.artifacts import MIB
from attar.errors import UsageError
from attar.planning import OPEN_SECONDS, RUNTIME_MIB, PlanContext
from attar.step import StepPlan
from attar.training.cache_config import CacheStep
from attar.training.plan import count_taught, planned_teacher
from attar.training.teaching.cache import cached_shape, kept_states
from attar.training.teaching.header import Content, codec_of
from attar.training.teaching.tensor_file import DTYPES, Width
from attar.training.update.precision import choose_precision, device_here

WORD_TOKENS = 4
"""Assumed number of tokens of a label word, including the end token; most words are shorter."""


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
    teacher_config = model.cost.model.config
    words = teacher_config.vocab_size
    answered = written or tokens
    row_bytes = cache_bytes(
        *(kept, teacher_config.hidden_size, config.dtype),
        tokens=tokens,
        written=answered if teacher_config.is_encoder_decoder else tokens,
        predicted=answered if head.num_labels is None else 1,
        columns=head.num_labels or words,
    )
    text_mib = model.activation_mib(tokens)
    device = device_here()
    precision = choose_precision(config.precision, device).name
    return StepPlan(
        flops=flops,
        memory_mib=RUNTIME_MIB + model.size_mib + config.batch_size * text_mib,
        disk_mib=rows * row_bytes / MIB,
        seconds=OPEN_SECONDS + context.seconds(forward=flops, precision=precision, device=device),
        counts={"rows": rows},
        passes=1,
        texts_at_once=config.batch_size,
        text_mib=text_mib,
        lowered_by="batch_size",
        is_estimate=chunks is not None and not chunks.is_exact,
        note=""
        if sparse is None
        else (f"{codec_of(sparse, words).record_bytes} bytes per token: {sparse.said()}"),
    )


def cache_bytes(
    kept: Content,
    hidden: int,
    dtype: Width,
    tokens: int,
    written: int,
    predicted: int,
    columns: int,
) -> int:
    """Size of the outputs for a row, in bytes.

    Args:
        hidden: the teacher's hidden size.
        dtype: of hidden states.
        tokens, written: number of tokens that the first stack reads, and that a decoder reads.
        predicted: number of predictions.
        columns: number of logits of each.
    """
    lengths = {"encoder": tokens, "decoder": written}
    states = sum(lengths[stack] * len(numbers) for stack, numbers in kept.states.items())
    codec = None if kept.sparse is None else codec_of(kept.sparse, columns)
    record = 4 * columns if codec is None else codec.record_bytes
    return states * hidden * DTYPES[dtype][2] + kept.logits * predicted * record
