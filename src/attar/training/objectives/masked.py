"""Running text with masked tokens: the objective for pre-training encoders and adapting them to a
domain.

A row is a text of fixed length between the tokenizer's special tokens, so only the last row is
padded; documents are concatenated, each followed by a separator. Every epoch masks other tokens
(`attar.data.corpus.masking`); validation always masks the same ones, whatever the run's seed. Only
masked positions have a label, so the language head computes logits only for these, in training and
for a teacher, whose distributions are compared there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attar.data.corpus.masking import Masker
from attar.data.packing import SEPARATOR
from attar.data.tables import Split
from attar.losses.targets import UNLABELLED, Counts, Targets
from attar.special_tokens import open_tokenizer, padding_id
from attar.tasks.masking import Masking
from attar.tasks.task import Task
from attar.training.objectives.examples import TokenIds
from attar.training.objectives.spans import Hidden, Largest, padded, running_rows

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MaskedTokens(Hidden):
    """A split for an encoder with a language head."""

    masker: Masker
    pad_id: int

    @classmethod
    def of(
        cls, split: Split, task: Task, model_folder: Path, seed: int, where: str
    ) -> MaskedTokens:
        """The texts of a split, or the chunks of a corpus cut into rows.

        Raises:
            ModelError: the tokenizer has no mask token or separator, or is not the corpus's
                tokenizer.
            DataError: the texts have fewer than two tokens.
        """
        masker = Masker.of(task.masking or Masking(), task.max_length, model_folder, seed)
        rows = running_rows(
            split, model_folder, masker.text_tokens, task.max_length, where, SEPARATOR
        )
        pad_id = padding_id(model_folder, open_tokenizer(model_folder))
        return cls(rows, masker, masker.mask_id if pad_id is None else pad_id)

    @property
    def raw_tokens(self) -> int:
        return self.masker.text_tokens

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([self._raw(row) for row in range(len(self))]) + self.masker.added

    @property
    def texts(self) -> Sequence[TokenIds]:
        return (Largest(max(self.rows.largest_id, len(self.masker.is_special) - 1)),)

    @property
    def tokens(self) -> int:
        return self.rows.tokens + len(self) * self.masker.added

    def counts(self, rows: NDArray[np.int64]) -> Counts:
        drawn = self._drawn(rows)
        hidden = sum(int((labels != UNLABELLED).sum()) for _, labels in drawn)
        read = sum(len(ids) for ids, _ in drawn)
        return {"prediction": hidden, "labelled": hidden, "encoder": read}

    def batch(
        self, rows: NDArray[np.int64], device: torch.device
    ) -> tuple[dict[str, Tensor], Targets]:
        drawn = self._drawn(rows)
        ids, mask = padded([read for read, _ in drawn], self.pad_id)
        labels, _ = padded([labels for _, labels in drawn], UNLABELLED)
        arrays = {"input_ids": ids, "attention_mask": mask}
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        masks = {"encoder": inputs["attention_mask"]}
        return inputs, Targets(torch.from_numpy(labels).to(device), masks)

    def _drawn(self, rows: NDArray[np.int64]) -> list[tuple[Ids, Ids]]:
        """Input ids and labels of some rows."""
        epochs, places = np.divmod(rows, len(self))
        return [
            self.masker.of_text(ids, int(place), int(epoch))
            for ids, place, epoch in zip(self.rows.ids(places), places, epochs, strict=True)
        ]
