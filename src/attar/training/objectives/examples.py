"""The interface between the training loop and its rows, for any objective.

labelled     a class or a score for each row
documents    the next token of running text
shards       the next token of a corpus's chunks
spans        the hidden spans of running text
text_pairs   a target text for each row, or the label word of its class

Continuations sampled during a step are another source (`attar.training.rollouts`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.tokenize import Encoded
from attar.losses.targets import Counts, Targets
from attar.scoring.in_memory import head_logits
from attar.scoring.rows import AfterBatch, longest_first, score_rows


class TokenIds(Protocol):
    """Summary of many rows of token ids."""

    @property
    def largest_id(self) -> int:
        """Upper bound of the ids."""
        ...

    @property
    def num_cut(self) -> int:
        """Number of rows that were truncated."""
        ...


@dataclass(frozen=True)
class Validation:
    """A model to validate, and how."""

    model: PreTrainedModel
    """Its train mode is restored afterwards."""
    metrics: Sequence[str]
    batch_size: int
    after_batch: AfterBatch = lambda rows: None

    def logits(
        self,
        encoded: Encoded,
        score: Callable[..., np.ndarray] = score_rows,
        texts_per_row: int = 1,
    ) -> np.ndarray:
        """Outputs of the model's head for each row; with `score_tokens`, for each token.

        Raises:
            NonFiniteError: an output is NaN or infinite.
        """
        batches = longest_first(encoded.lengths, texts_per_row * self.batch_size)
        return score(head_logits(self.model), encoded, batches, "the model", self.after_batch)


class StepExamples(Protocol):
    """Rows for an optimizer step."""

    def counts(self, rows: np.ndarray) -> Counts:
        """Number of units of each kind in these rows: predictions, tokens."""
        ...

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        """Inputs (B, T), padded to the longest of these rows, and their targets."""
        ...


class Examples(StepExamples, Protocol):
    """The rows of a split, ready for a model. Row i is row i of the data that the step read."""

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row, used to batch rows of similar length."""
        ...

    @property
    def texts(self) -> Sequence[TokenIds]:
        """All token ids that a model gets: those it reads, then those it writes."""
        ...

    def __len__(self) -> int: ...

    def validate(self, wanted: Validation) -> dict[str, float]:
        """Metrics by name, including "loss".

        Raises:
            NonFiniteError: a prediction is NaN or infinite.
        """
        ...


class Streamed(Examples):
    """Rows of similar length, read in arbitrary order without knowing all lengths in advance."""

    is_drawn_anew: ClassVar[bool] = False
    """Whether a row is different in every epoch; in epoch e, row i then has the number e · N +
    i."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Number of tokens that a model reads per epoch, in all its stacks."""

    @property
    def written(self) -> int | None:
        """Mean number of decoder input tokens per row, in an encoder-decoder; None: there is no
        such decoder.
        """
        return None
