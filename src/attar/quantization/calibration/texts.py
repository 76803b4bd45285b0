"""Prepares the calibration batches of `quantize` steps and `analyze` studies.

    seeded choice of training rows → tokens → batches of like length → what a decoder would write
    seeded choice of documents → blocks of max_length tokens, documents end to end

The last arrow applies only to models with a decoder: decoder inputs are the model's generations or
its label words (`decoder_texts`). The second line is for causal language models and running text,
which is packed into blocks as in training. A token classifier reads windows of its texts; the
number of windows drawn is the number of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attar.data.packing import token_blocks
from attar.data.tables import TextData
from attar.data.tokenize import Encoded, TextEncoder
from attar.data.windows import WindowEncoder
from attar.models.load import LoadedModel
from attar.quantization.calibration.calibrate import (
    Batch,
    choose_examples,
    length_sorted,
    require_examples,
    to_tensors,
)
from attar.quantization.calibration.decoder_texts import (
    WRITERS_BATCH_SIZE,
    with_generations,
    with_label_words,
)
from attar.quantization.config import BATCH_SIZE
from attar.scoring.label_words import LabelWords
from attar.seeds import generator
from attar.step import StepContext
from attar.tasks.task import Task


@dataclass(frozen=True)
class CalibrationTexts:
    """Indices of the chosen rows, and their batches."""

    batches: list[Batch]
    indices: list[int]
    """Rows of the train split; for running text, the documents that were read."""
    seed: int


def calibration_texts(
    loaded: LoadedModel,
    encoder: TextEncoder,
    data: TextData,
    context: StepContext,
    *,
    examples: int,
    batch_size: int | None,
    seed: int | None,
    named: LabelWords | None = None,
) -> CalibrationTexts:
    """Sample `examples` training rows of `data`, or blocks of running text, and batch them.

    Args:
        batch_size: None: 32, or 4 for a generative or causal language model.
        seed: seed of the sample; None: the recipe's seed.
        named: template and label words of a classification; None: those of the model's task.
    Raises:
        DataError: fewer training rows or blocks than `examples`, or a row lacks a column that the
            template uses.
        StoppedError: the process was asked to stop during generation.
    """
    seed = context.seed if seed is None else seed
    train = data.split("train")
    named = named or LabelWords.of_task(loaded.model, loaded.folder, loaded.task)
    is_language_model = loaded.model.get_output_embeddings() is not None and named is None
    writes_text = is_language_model and loaded.model.config.is_encoder_decoder
    batch_size = batch_size or (WRITERS_BATCH_SIZE if is_language_model else BATCH_SIZE)
    if is_language_model and not writes_text and data.kind.is_running:
        blocks, documents = _blocks(loaded, data, examples, encoder.max_length, seed)
        numbers = length_sorted(blocks.lengths[:examples], batch_size)
        batches = [to_tensors(blocks.batch(batch)) for batch in numbers]
        return CalibrationTexts(list(batches), documents, seed)
    rows = choose_examples(len(train), examples, seed, data.name)
    texts = train.rows(rows).texts
    if named is not None:
        texts = named.render(texts)
    elif loaded.task is not None:
        texts = loaded.task.texts_read(texts)
    if loaded.task is not None and loaded.task.kind.answers_tokens:
        encoded = _windows(loaded.folder, loaded.task, texts)
        drawn = generator(seed, "calibration windows").permutation(len(encoded))[:examples]
        lengths = encoded.lengths[drawn]
        numbers = [drawn[batch] for batch in length_sorted(lengths, batch_size)]
    else:
        encoded = encoder.encode(texts)
        numbers = length_sorted(encoded.lengths, batch_size)
    batches = [to_tensors(encoded.batch(batch)) for batch in numbers]
    if named is not None:
        batches = with_label_words(named, loaded.model, batches)
    elif writes_text and loaded.task is not None:
        batches = with_generations(loaded, batches, context)
    return CalibrationTexts(list(batches), rows.tolist(), seed)


def _windows(folder: Path, task: Task, texts: Sequence[tuple[str, ...]]) -> Encoded:
    """Split texts into the windows that a token classifier reads."""
    return WindowEncoder(folder, task).encode(texts).encoded


def blocks_of(length: int) -> str:
    """Unit of running text in messages."""
    return f"training blocks of {length} tokens"


def _blocks(
    loaded: LoadedModel, data: TextData, wanted: int, length: int, seed: int
) -> tuple[Encoded, list[int]]:
    """At least `wanted` blocks from documents in a seeded order, and the documents' indices. The
    number of documents doubles until there are enough blocks."""
    train = data.split("train")
    order = generator(seed, "calibration").permutation(len(train))
    count = min(wanted, len(order))
    where = f"split 'train' of data {data.name!r}"
    while True:
        documents = order[:count]
        texts = train.rows(documents).texts
        blocks = token_blocks(loaded.folder, texts, length, where).encoded
        if len(blocks) >= wanted:
            return blocks, documents.tolist()
        if count == len(order):
            require_examples(len(blocks), wanted, data.name, blocks_of(length))
        count = min(2 * count, len(order))
