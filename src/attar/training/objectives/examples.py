"""The interface between the training loop and its rows, whatever is predicted.

labelled     a class or a score for each row
documents    the next token of running text
shards       the next token of a corpus's chunks
spans        the hidden spans of running text
text_pairs   a text for each row, or the word of its class

Continuations of the rows, sampled in a step, are another source (`attar.training.rollouts`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.losses.targets import Counts, Targets
from attar.scoring.rows import AfterBatch


class TokenIds(Protocol):
    """Facts about many rows of token ids."""

    @property
    def largest_id(self) -> int:
        """No id is above it."""
        ...

    @property
    def num_cut(self) -> int:
        """Rows that were longer than allowed and are cut."""
        ...


class StepExamples(Protocol):
    """Rows that an optimizer step learns from."""

    def counts(self, rows: np.ndarray) -> Counts:
        """How many of each unit these rows hold."""
        ...

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        """Inputs (B, T), padded to the longest of these rows, and what is known about them."""
        ...


class Examples(StepExamples, Protocol):
    """Rows of one split, ready for a model. Row i is row i of what the step read."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row; rows of like length share a batch."""
        ...

    @property
    def texts(self) -> Sequence[TokenIds]:
        """All token ids that a model will be fed: those it reads, then those it writes."""
        ...

    def __len__(self) -> int: ...

    def validate(
        self,
        model: PreTrainedModel,
        metrics: Sequence[str],
        batch_size: int,
        after_batch: AfterBatch,
    ) -> dict[str, float]:
        """Metrics by name, and "loss". The model's train mode is left as it was.

        Args:
            after_batch: called with the number of rows just done; may raise to stop.
        Raises:
            NonFiniteError: a prediction is NaN or infinite.
        """
        ...


class Streamed(Examples):
    """Rows of like length, which are read in any order without knowing every length before."""

    is_drawn_anew: ClassVar[bool] = False
    """Whether a row is another one in every epoch; in epoch e it then has the number e · N + i."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """That a model reads in an epoch, in all its stacks."""

    @property
    def written(self) -> int | None:
        """Of them, what a decoder after an encoder is fed of a row on average; None: nothing."""
        return None
