"""What a decoder reads in calibration: what the model writes itself, or the words of classes.

Gold summaries would show a decoder words that it would never write. So the float model writes
first, with the settings it is used with; then every later pass, float or quantized, reads those
words at once (teacher forcing) and visits exactly the activations that writing them visited.

    decoder reads   start, w₁ … wₙ      its mask is 1 there; the end token is written, never read

Of several beams only the chosen text is read again.

A language model that names classes by words reads the row in a template, and its decoder the words
of the classes, all of them, because the likeliest one is the answer: one class's word per text, in
turn through all batches.

    decoder of text i reads   start, w₁ … wₙ₋₁      of class i mod C; its mask is 1 there

A decoder without an encoder reads the template alone. Left out: every word after every text.
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
"""Texts a batch, where the recipe says nothing; the paper's."""


def with_generations(
    loaded: LoadedModel, batches: Sequence[Mapping[str, Tensor]], context: StepContext
) -> list[dict[str, Tensor]]:
    """Each batch with what the model writes to its texts, as its decoder reads it.

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
    """What the decoder reads when it writes `written` (B, S), with its mask; both (B, S − 1)."""
    config = loaded.model.config
    mask = tokens_read(written, config.eos_token_id)[:, :-1]
    ids = torch.where(mask > 0, written[:, :-1], config.pad_token_id)
    return {"decoder_input_ids": ids, DECODER_MASK: mask}


def with_label_words(
    words: LabelWords, model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, Tensor]]:
    """Batches (B, T) with the words of the classes, in turn, for the decoder, (B, S)."""
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
