"""Running text: every token is predicted from those before it in its block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.packing import TokenBlocks, token_blocks
from attar.data.tables import Split
from attar.data.tokenize import Encoded
from attar.losses.targets import UNLABELLED, Counts, Targets
from attar.scoring.rows import AfterBatch
from attar.training.objectives.next_tokens import validate_running_text


@dataclass(frozen=True)
class Documents:
    """One split, ready for a causal language model; a row is a block of tokens."""

    blocks: TokenBlocks

    @classmethod
    def of(cls, split: Split, model_folder: Path, length: int, where: str) -> Documents:
        """Read the texts with a folder's tokenizer into blocks of `length` tokens.

        Raises: as `token_blocks`.
        """
        return cls(token_blocks(model_folder, split.texts, length, where))

    @property
    def lengths(self) -> np.ndarray:
        return self.blocks.encoded.lengths

    @property
    def texts(self) -> Sequence[Encoded]:
        return (self.blocks.encoded,)

    def __len__(self) -> int:
        return len(self.blocks.encoded)

    def counts(self, rows: np.ndarray) -> Counts:
        tokens = int(self.lengths[rows].sum())
        predicted = tokens - len(rows)
        return {"prediction": predicted, "labelled": predicted, "decoder": tokens}

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        arrays = self.blocks.encoded.batch(rows)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        labels = torch.full_like(ids, UNLABELLED)
        labels[:, :-1] = torch.where(mask[:, 1:] > 0, ids[:, 1:], UNLABELLED)
        return inputs, Targets(labels, {"decoder": mask})

    def validate(
        self,
        model: PreTrainedModel,
        metrics: Sequence[str],
        batch_size: int,
        after_batch: AfterBatch,
    ) -> dict[str, float]:
        return validate_running_text(
            *(model, self, metrics, batch_size, after_batch),
            tokens=int(self.lengths.sum()),
            num_bytes=self.blocks.num_bytes,
        )
