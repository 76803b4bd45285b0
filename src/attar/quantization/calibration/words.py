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
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Self

import torch
from torch import Tensor

from attar.models.choice import Candidates, following_candidates, start_of, target_candidates
from attar.models.load import LoadedModel
from attar.models.task import filled
from attar.quantization.calibration.real_tokens import DECODER_MASK
from attar.special_tokens import open_tokenizer


@dataclass(frozen=True)
class NamedClasses:
    """How a language model is asked for a class."""

    template: str
    """What a row's texts are read in, with {0} and {1} for them."""
    candidates: Candidates
    """The classes' words."""

    @classmethod
    def of(cls, loaded: LoadedModel, template: str, words: Sequence[str]) -> Self:
        """Classes as this model's tokenizer writes them.

        Raises:
            ModelError: a word has no token, or is joined with the end of the template.
        """
        tokenizer = open_tokenizer(loaded.folder)
        if loaded.model.config.is_encoder_decoder:
            return cls(template, target_candidates(tokenizer, words))
        return cls(template, following_candidates(tokenizer, words, template))

    @classmethod
    def of_task(cls, loaded: LoadedModel) -> Self | None:
        """Classes as the model was taught to name them; None: it answers otherwise."""
        task = loaded.task
        if task is None or not task.label_words:
            return None
        return cls.of(loaded, task.template, task.label_words)

    def render(self, texts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Each row in the template.

        Raises:
            DataError: the template names a text that a row does not have.
        """
        return [(filled(self.template, row),) for row in texts]

    def read_by(
        self, loaded: LoadedModel, batches: Sequence[Mapping[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """Batches (B, T) with the words of the classes, in turn, for the decoder, (B, S)."""
        if not loaded.model.config.is_encoder_decoder:
            return [dict(batch) for batch in batches]
        start = start_of(loaded.model)
        words = cycle([(start, *ids[:-1]) for ids in self.candidates.ids])
        return [_with_words(batch, words, start) for batch in batches]


def _with_words(
    batch: Mapping[str, Tensor], words: Iterator[tuple[int, ...]], start: int
) -> dict[str, Tensor]:
    rows = list(islice(words, len(batch["input_ids"])))
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[start] * (longest - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(longest) < lengths[:, None]).to(torch.int64)
    return {**batch, "decoder_input_ids": ids, DECODER_MASK: mask}
