"""Calibration texts for a language model that names classes by words.

The problem: such a model never reads a plain row. Its encoder reads the row in a template, and its
decoder the words of the classes, all of them, because the likeliest one is the answer. The idea:
calibrate on that. Every text is read in the template; the decoder reads one class's word a text, in
turn through all batches, so that C texts show all words and a pass costs no more than the texts.

    decoder of text i reads   start, w₁ … wₙ₋₁      of class i mod C; its mask is 1 there

A decoder without an encoder reads the template alone. Left out: every word after every text.
Shape letters: `B` texts, `S` tokens of a word, `C` classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.generation import start_of
from attar.quantization.calibration.real_tokens import DECODER_MASK
from attar.scoring.label_words import LabelWords


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
