"""Running text for next-token prediction, and the validation metrics of language models.

nll = Σ −log p(token | tokens before it) / tokens      nats per token
perplexity = exp(nll)            bits_per_byte = Σ −log₂ p / bytes of the text
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attar.data.packing import TokenBlocks, token_blocks
from attar.data.tables import Split
from attar.data.tokenize import Encoded
from attar.losses.targets import UNLABELLED, Counts, Targets
from attar.numerics.metrics import LARGEST_EXPONENT
from attar.scoring.in_memory import row_nats
from attar.scoring.rows import longest_first, score_batches
from attar.training.objectives.examples import Examples, Validation


def nats_of_rows(wanted: Validation, examples: Examples) -> np.ndarray:
    """Σ −log p over the labelled tokens of each row, in nats, float64 (N,).

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """

    def of_rows(rows: np.ndarray) -> np.ndarray:
        inputs, targets = examples.batch(rows, wanted.model.device)
        return row_nats(wanted.model, inputs, targets.labels, targets.predicted)

    batches = longest_first(examples.lengths, wanted.batch_size)
    return score_batches(of_rows, batches, "the model", wanted.after_batch)


def validate_running_text(
    wanted: Validation, examples: Examples, *, tokens: int, num_bytes: int
) -> dict[str, float]:
    """The requested ones of nll, perplexity and bits_per_byte; and "loss", which is the nll.

    Args:
        tokens: number of tokens in all rows. The first token of a row is not predicted, so its
            bytes do not count.
        num_bytes: size of all rows' text.

    Raises:
        NonFiniteError: a prediction is NaN or infinite.
    """
    nats_N = nats_of_rows(wanted, examples)
    predicted = tokens - len(examples)
    found = language_metrics(float(nats_N.sum()), predicted, num_bytes * predicted / tokens)
    return {name: found[name] for name in wanted.metrics} | {"loss": found["nll"]}


def language_metrics(nats: float, tokens: int, num_bytes: float | None = None) -> dict[str, float]:
    """Metrics by name; bits_per_byte only if the number of bytes is known.

    Args:
        nats: Σ −log p over `tokens` tokens, which spell `num_bytes` bytes.

    Example:
        >>> {name: round(v, 4) for name, v in language_metrics(math.log(2) * 8, 4, 2).items()}
        {'nll': 1.3863, 'perplexity': 4.0, 'bits_per_byte': 4.0}
    """
    nll = nats / max(tokens, 1)
    found = {"nll": nll, "perplexity": math.exp(min(nll, LARGEST_EXPONENT))}
    return found if not num_bytes else found | {"bits_per_byte": nats / math.log(2) / num_bytes}


@dataclass(frozen=True)
class Documents:
    """A split for a causal language model; a row is a block of tokens."""

    blocks: TokenBlocks

    @classmethod
    def of(cls, split: Split, model_folder: Path, length: int, where: str) -> Documents:
        """Tokenize the texts into blocks of `length` tokens.

        Raises:
            ModelError, DataError: as `token_blocks`.
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

    def validate(self, wanted: Validation) -> dict[str, float]:
        return validate_running_text(
            wanted,
            self,
            tokens=int(self.lengths.sum()),
            num_bytes=self.blocks.num_bytes,
        )
