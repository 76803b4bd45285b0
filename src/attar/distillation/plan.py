"""Cost of new rows: a forward-pass row for every word that some copy replaces, or a forward pass
over every generated text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from attar.artifacts import MIB
from attar.data.augmented import with_copies
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.distillation.config import AugmentStep, GenerateStep
from attar.distillation.generate import WRITTEN_PART, num_texts
from attar.planning import (
    CORPUS_BYTES_A_TOKEN,
    OPEN_SECONDS,
    RUNTIME_MIB,
    SHARD_BYTES_A_TOKEN,
    Head,
    PlanContext,
    PlannedChunks,
    PlannedCorpus,
)
from attar.step import StepPlan
from attar.tasks.table import CAUSAL_LM
from attar.training.update.precision import choose_precision, device_here

BYTES_A_TOKEN = 4 / 3
"""Size of an augmented row: about four bytes of text per token, a third when compressed."""
WRITING = 4.0
"""How much longer it takes to generate a token than to read one: the weights are read from memory
for only a few rows. Measured with 64 texts at once (`benchmarks/generating.py`); fewer take longer:
about 12 times with 8 texts, 50 times with one."""
DRAWN_BYTES = 32
"""Memory per vocabulary entry and generated text: float64 numbers to sample from."""


def plan_augment(config: AugmentStep, context: PlanContext) -> StepPlan:
    """Plan an augmentation: about one token per word, and three tensors of scores per row."""
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
        flops=flops,
        memory_mib=RUNTIME_MIB + model.size_mib + scores / MIB,
        disk_mib=rows * config.copies * tokens * BYTES_A_TOKEN / MIB,
        seconds=OPEN_SECONDS + context.seconds(forward=flops, precision=precision, device=device),
        counts={"rows_in": rows, "rows_out": rows * config.copies},
    )


def plan_generate(config: GenerateStep, context: PlanContext) -> StepPlan:
    """Plan a corpus of generated texts, assuming that none ends early. Registers its size for the
    steps that read it."""
    form = context.corpus(config.data)
    model = context.model(config.model, Head(None, CAUSAL_LM), config.max_length)
    chunks = context.texts.chunks_of(config.data, config.part)
    assert chunks is not None, "check refuses to continue anything but chunks"
    texts = num_texts(config, chunks.chunks)
    tokens = texts * config.max_length
    written = PlannedChunks(texts, tokens, is_exact=False)
    if folder := context.made.get(context.name):
        written = PlannedChunks.of(CorpusView(Corpus.open(folder)))
    data = context.texts.loaded(config.data)
    train = data.split("train")
    some = train.rows(range(max(1, len(train) * texts // max(chunks.chunks, 1))))
    splits = {**data.splits, "train": some}
    context.texts.add(context.name, replace(data, splits=splits), {WRITTEN_PART: written})
    context.tokenizers[context.name] = form.tokenizer
    context.corpora[context.name] = PlannedCorpus(form.tokenizer, config.max_length)
    flops = texts * model.cost.flops(1, config.max_length)
    rows = min(config.batch_rows, texts)
    plain: Any = model.cost.model.config
    drawn = rows * plain.vocab_size * DRAWN_BYTES
    shard = min(tokens, config.shard_tokens) * SHARD_BYTES_A_TOKEN
    cache = rows * config.max_length * _cache_bytes(plain)
    return StepPlan(
        flops=flops,
        memory_mib=RUNTIME_MIB + model.size_mib + (cache + drawn + shard) / MIB,
        disk_mib=tokens * CORPUS_BYTES_A_TOKEN / MIB,
        seconds=OPEN_SECONDS + WRITING * context.seconds(forward=flops),
        counts={"texts": texts},
        passes=1,
        is_estimate=True,
    )


def _cache_bytes(config: Any) -> int:
    """Size of the key-value cache per token, over all blocks."""
    heads = getattr(config, "num_attention_heads", None) or 1
    shared = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * 4 * config.num_hidden_layers * shared * size
