"""Decoder inputs for calibration: the model's own generations, or the words of its classes.

Reference summaries contain tokens that the model would not generate. So the float model generates
once, with its own generation settings. Every later pass, float or quantized, reads the generated
tokens by teacher forcing, which gives the same activations as generating them.

    decoder reads   start, w₁ … wₙ      its mask is 1 there; the end token is written, never read

With beam search only the best beam is used.

A language model that classifies by label words reads the row in a template, and its decoder reads
the label words. Prediction compares all classes, so all of them are used: one label word per text,
cycling through the classes over all batches.

    decoder of text i reads   start, w₁ … wₙ₋₁      of class i mod C; its mask is 1 there

A decoder-only model reads only the template. Left out: all label words for every text.
Shape letters: `B` texts, `S` tokens of a word, `C` classes.
Source: Outlier Suppression (Wei et al. 2022), section 5.1: batches of 4 for summarisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.generation import generate, start_of, tokens_read
from attar.models.load import LoadedModel
from attar.quantization.calibration.real_tokens import DECODER_MASK
from attar.scoring.label_words import LabelWords
from attar.step import StepContext

WRITERS_BATCH_SIZE = 4
"""Default number of texts per batch, from the paper."""


def with_generations(
    loaded: LoadedModel, batches: Sequence[Mapping[str, Tensor]], context: StepContext
) -> list[dict[str, Tensor]]:
    """Add the model's generations to each batch, as decoder inputs.

    Raises:
        StoppedError: the process was asked to stop.
    """
    assert loaded.task is not None
    read: list[dict[str, Tensor]] = []
    with context.progress.task("texts of the float model", len(batches)) as task:
        for batch in batches:
            context.stop_if_asked("calibration")
            inputs, mask = batch["input_ids"], batch["attention_mask"]
            written = generate(loaded.model, loaded.task, inputs, mask)
            read.append({**batch, **decoder_inputs(loaded, written)})
            task.advance()
    return read


def decoder_inputs(loaded: LoadedModel, written: Tensor) -> dict[str, Tensor]:
    """Decoder inputs and mask, both (B, S − 1), that correspond to generating `written` (B, S)."""
    config = loaded.model.config
    mask = tokens_read(written, config.eos_token_id)[:, :-1]
    ids = torch.where(mask > 0, written[:, :-1], config.pad_token_id)
    return {"decoder_input_ids": ids, DECODER_MASK: mask}


def with_label_words(
    words: LabelWords, model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, Tensor]]:
    """Add label words (B, S) to batches (B, T) as decoder inputs, cycling through the classes."""
    if not model.config.is_encoder_decoder:
        return [dict(batch) for batch in batches]
    start = start_of(model)
    fed = cycle([(start, *ids[:-1]) for ids in words.candidates.ids])
    return [_with_words(batch, fed, start) for batch in batches]


def _with_words(
    batch: Mapping[str, Tensor], words: Iterator[tuple[int, ...]], start: int
) -> dict[str, Tensor]:
    rows = list(islice(words, len(batch["input_ids"])))
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[start] * (longest - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(longest) < lengths[:, None]).to(torch.int64)
    return {**batch, "decoder_input_ids": ids, DECODER_MASK: mask}
