"""Running text with hidden spans, for an encoder-decoder: T5's pre-training.

A row is a text of fixed length that, after corruption, fills the encoder's `max_length` exactly. So
rows need no padding, except the last one and those of a mixture of denoisers. Every epoch hides
different spans: row i of epoch e has the number e · N + i, which determines its spans. Validation
always hides the same spans, whatever the run's seed.

The decoder's input is its target shifted one position to the right, after the start token. Padding
is masked by length, so an end token used as padding is never predicted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attar.data.corpus.spans import Corruption
from attar.data.corpus.stream import BlockRows, Rows, StreamRows
from attar.data.packing import END, token_blocks
from attar.data.tables import Split
from attar.losses.targets import UNLABELLED, Counts, Targets
from attar.tasks.denoising import PUBLISHED, mean_lengths
from attar.tasks.task import Task
from attar.training.objectives.examples import Streamed, TokenIds, Validation
from attar.training.objectives.next_tokens import language_metrics, nats_of_rows
from attar.training.objectives.shards import require_tokenizer

VALIDATION_SEED = 0
"""All models with the same tokenizer are evaluated on the same hidden spans."""


@dataclass(frozen=True)
class Largest:
    """Summary of token ids that have not been read yet."""

    largest_id: int
    num_cut: int = 0


@dataclass(frozen=True, eq=False)
class Hidden(Streamed):
    """Rows of running text with a hidden part, a different one in every epoch."""

    rows: Rows
    is_drawn_anew: ClassVar[bool] = True

    @property
    @abstractmethod
    def raw_tokens(self) -> int:
        """Number of tokens of a full row's text."""

    def __len__(self) -> int:
        return len(self.rows)

    def validate(self, wanted: Validation) -> dict[str, float]:
        """nll and perplexity of the hidden tokens; and "loss", which is the nll."""
        nats = float(nats_of_rows(wanted, self).sum())
        found = language_metrics(nats, self.counts(np.arange(len(self)))["labelled"])
        return {name: found[name] for name in wanted.metrics} | {"loss": found["nll"]}

    def _raw(self, place: int) -> int:
        """Number of tokens of a row's text."""
        return min(self.raw_tokens, self.rows.tokens - place * self.raw_tokens)


def running_rows(
    split: Split, model_folder: Path, length: int, max_length: int, where: str, end: str = END
) -> Rows:
    """The concatenated texts of a split, or the chunks of a corpus, cut every `length` tokens.

    Args:
        max_length: number of tokens the model reads, for messages.
        end: as in `document_tokenizer`.

    Raises:
        ModelError: the tokenizer has no end token, or is not the corpus's tokenizer.
        DataError: the texts have fewer than two tokens.
    """
    if split.chunks is not None:
        require_tokenizer(split.chunks, model_folder, max_length)
        return StreamRows(split.chunks, length)
    return BlockRows(token_blocks(model_folder, split.texts, length, where, end).encoded)


@dataclass(frozen=True, eq=False)
class HiddenSpans(Hidden):
    """A split for an encoder-decoder. The sentinels in the targets are predicted too."""

    corruption: Corruption
    start_id: int
    """The decoder's first input token."""

    @classmethod
    def of(
        cls, split: Split, task: Task, model_folder: Path, start: int, seed: int, where: str
    ) -> HiddenSpans:
        """The texts of a split, or the chunks of a corpus, cut into rows.

        Raises:
            ModelError: the tokenizer has no end token, sentinels or prefixes, or is not the
                corpus's tokenizer.
            DataError: the texts have fewer than two tokens.
        """
        denoisers = task.denoisers or PUBLISHED
        corruption = Corruption.of(denoisers, task.max_length, model_folder, seed)
        raw = corruption.raw_tokens
        rows = running_rows(split, model_folder, raw, task.max_length, where)
        return cls(rows, corruption, start)

    @property
    def raw_tokens(self) -> int:
        return self.corruption.raw_tokens

    @property
    def lengths(self) -> NDArray[np.int64]:
        """In the first epoch."""
        return np.array([sum(self._lengths(row)) for row in range(len(self))], dtype=np.int64)

    @property
    def texts(self) -> Sequence[TokenIds]:
        sentinels = int(self.corruption.sentinels.max())
        return (Largest(max(self.rows.largest_id, sentinels)),)

    @property
    def tokens(self) -> int:
        """Mean over the denoisers."""
        raw, last = self.corruption.raw_tokens, self._raw(len(self) - 1)
        denoisers = self.corruption.denoisers
        whole, rest = (sum(mean_lengths(denoisers, tokens)) for tokens in (raw, last))
        return round((len(self) - 1) * whole + rest)

    @property
    def written(self) -> int:
        return round(mean_lengths(self.corruption.denoisers, self.corruption.raw_tokens)[1])

    def counts(self, rows: NDArray[np.int64]) -> Counts:
        read, written = np.sum([self._lengths(row) for row in rows.tolist()], axis=0).tolist()
        return {"prediction": written, "labelled": written, "encoder": read, "decoder": written}

    def batch(
        self, rows: NDArray[np.int64], device: torch.device
    ) -> tuple[dict[str, Tensor], Targets]:
        epochs, places = np.divmod(rows, len(self))
        texts = self.rows.ids(places)
        pairs = [
            self.corruption.of_text(ids, int(place), int(epoch))
            for ids, place, epoch in zip(texts, places, epochs, strict=True)
        ]
        end = self.corruption.end_id
        ids, mask = padded([read for read, _ in pairs], end)
        labels, written = padded([target for _, target in pairs], UNLABELLED)
        fed = np.concatenate([np.full((len(rows), 1), self.start_id), labels[:, :-1]], axis=1)
        arrays = {
            "input_ids": ids,
            "attention_mask": mask,
            "decoder_input_ids": np.where(fed == UNLABELLED, end, fed),
            "decoder_attention_mask": written,
        }
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        masks = {
            "encoder": inputs["attention_mask"],
            "decoder": inputs["decoder_attention_mask"],
        }
        return inputs, Targets(torch.from_numpy(labels).to(device), masks)

    def _lengths(self, row: int) -> tuple[int, int]:
        epoch, place = divmod(row, len(self))
        return self.corruption.lengths(self._raw(place), place, epoch)


def padded(
    rows: Sequence[NDArray[np.int64]], pad: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Padded rows, (B, T), and a mask that is 1 for tokens."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(mask.shape, pad, np.int64)
    padded[mask] = np.concatenate(rows)
    return padded, mask.astype(np.int64)
