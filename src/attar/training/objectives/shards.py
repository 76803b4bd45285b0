"""Chunks of a corpus, read from its shards without tokenizing again.

Of a chunk of n tokens, n − 1 are read and n − 1 predicted, or only those after its prompt. Padding
is masked by length, so the end token, which also serves as padding, is still predicted at the end
of a document.

Memory: one batch, whatever the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attar.data.corpus.view import CorpusView
from attar.errors import ModelError, UsageError
from attar.losses.targets import UNLABELLED, Counts, Targets
from attar.special_tokens import open_tokenizer, tokenizer_digest
from attar.training.objectives.examples import Streamed, Validation
from attar.training.objectives.next_tokens import validate_running_text


@dataclass(frozen=True, eq=False)
class Shards(Streamed):
    """The chunks of a view, for a causal language model; a row is a chunk."""

    view: CorpusView

    @classmethod
    def of(cls, view: CorpusView, model_folder: Path, max_length: int) -> Shards:
        """The chunks for a model with this tokenizer.

        Raises:
            ModelError: the corpus was made with another tokenizer.
            UsageError: chunks are longer than `max_length`.
        """
        require_tokenizer(view, model_folder, max_length)
        require_length(view.label, view.corpus.about["max_length"], max_length)
        return cls(view)

    @property
    def lengths(self) -> np.ndarray:
        """Takes 8 bytes per chunk: for small views, or when all lengths are needed at once."""
        return _read(self.view.lengths(np.arange(len(self))))

    @property
    def largest_id(self) -> int:
        return int(self.view.corpus.about["vocabulary"]) - 1

    @property
    def num_cut(self) -> int:
        return 0

    @property
    def texts(self) -> Sequence[Shards]:
        return (self,)

    @property
    def tokens(self) -> int:
        """Number of input tokens of all chunks."""
        return max(self.view.tokens - len(self), len(self))

    def __len__(self) -> int:
        return len(self.view)

    def by_shard(self) -> Iterator[Shards]:
        """The chunks in each shard of the corpus that has any."""
        begin = 0
        for _, rows in self.view.shards():
            if len(rows):
                yield Shards(self.view.take(np.arange(begin, begin + len(rows))))
            begin += len(rows)

    def counts(self, rows: np.ndarray) -> Counts:
        lengths = self.view.lengths(rows)
        predicted = max(int((lengths - 1 - self._skipped(rows)).sum()), 1)
        read = int(_read(lengths).sum())
        return {"prediction": predicted, "labelled": predicted, "decoder": read}

    def _skipped(self, rows: np.ndarray) -> np.ndarray:
        """Number of predictions at the beginning of each chunk that are excluded from the loss:
        those of its prompt.
        """
        if self.view.learns_prompts:
            return np.zeros(len(rows), np.int64)
        return np.maximum(self.view.column("prompt", rows).astype(np.int64) - 1, 0)

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        chunks = self.view.ids(rows)
        lengths = _read(np.array([len(chunk) for chunk in chunks]))
        shape = len(rows), int(lengths.max())
        ids = np.full(shape, self.view.corpus.about["end_id"], np.int64)
        labels = np.full(shape, UNLABELLED, np.int64)
        read = zip(chunks, lengths, self._skipped(rows), strict=True)
        for place, (chunk, length, skipped) in enumerate(read):
            ids[place, :length] = chunk[:length]
            labels[place, skipped : len(chunk) - 1] = chunk[skipped + 1 :]
        mask = np.arange(shape[1]) < lengths[:, None]
        inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        tensors = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
        masks = {"decoder": tensors["attention_mask"]}
        return tensors, Targets(torch.from_numpy(labels).to(device), masks)

    def validate(self, wanted: Validation) -> dict[str, float]:
        return validate_running_text(
            wanted,
            self,
            tokens=self.view.tokens,
            num_bytes=sum(len(text.encode()) for text in self.view.all_texts()),
        )


def _read(lengths: np.ndarray) -> np.ndarray:
    """Number of input tokens of chunks with these lengths. A chunk of a single token is read, but
    nothing is predicted."""
    return np.maximum(lengths - 1, 1)


def require_tokenizer(view: CorpusView, model_folder: Path, max_length: int) -> None:
    """Raise if the chunks were made with another tokenizer, as `require_same`."""
    require_same(view.label, view.corpus.about["tokenizer"], model_folder, max_length)


def require_same(name: str, digest: str, model_folder: Path, max_length: int) -> None:
    """Raise ModelError if the chunks were made with another tokenizer than the model's.

    Args:
        name: of the corpus or the selection in the recipe.
        digest: of its tokenizer.
        max_length: number of tokens the model reads, for the message.
    """
    if tokenizer_digest(open_tokenizer(model_folder)) != digest:
        raise ModelError(
            f"{name!r} has tokens of another tokenizer than that of {model_folder}; set "
            f"{_again(name, max_length)} to pack its texts again, or use a model with the "
            "tokenizer of the corpus"
        )


def require_length(name: str, longest: int, max_length: int) -> None:
    """Raise UsageError if chunks are longer than the model's `max_length`.

    Args:
        name: of the corpus or the selection in the recipe.
        longest: number of input tokens of its longest chunk.
    """
    if longest > max_length:
        raise UsageError(
            f"{name!r} has chunks of up to {longest} tokens, max_length is {max_length}; set "
            f"max_length = {longest}, or pack the texts again with {_again(name, max_length)}"
        )


def _again(name: str, max_length: int) -> str:
    return f'data = {{ from = "{name}", retokenize = true, max_length = {max_length} }}'
