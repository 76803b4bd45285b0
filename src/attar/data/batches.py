"""Batches of rows of similar length, in an order that is a pure function of (seed, epoch).

A batch is padded to its longest row. With rows in random order, half of the computation is spent on
padding; with all rows sorted by length, every epoch would have the same batches, from short to
long. So we shuffle the rows, cut the permutation into groups of many batches, sort by length within
a group, cut the groups into batches, and shuffle the batches: the composition of batches changes
every epoch, and there is almost no padding.

There is no state: a resumed run computes the same epoch again and skips the batches that are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attar.errors import UsageError
from attar.seeds import generator

BATCHES_PER_GROUP = 50
"""Number of batches sorted together. Measured padding efficiency (batch 32, MiniLM's tokens, groups
of 1, 10, 50 and 1,000 batches): SST-2 0.33, 0.82, 0.95, 0.997; MRPC 0.66, 0.93, 0.98, 0.99. Larger
groups gain little and mix the rows less."""


class Batches(Protocol):
    """The rows of each training step: a pure function of the step's number."""

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        ...

    def at(self, step: int) -> np.ndarray:
        """Row numbers of a step's batch; steps are counted from 0 over all epochs."""
        ...


class LengthGroupedBatches:
    """Every row exactly once per epoch, in batches of at most `batch_size` rows of similar length.

    Args:
        lengths: number of tokens of each row.
        batch_size: number of rows in a batch; only the last batch that is cut may be smaller.

    Raises:
        UsageError: `batch_size` is not positive.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._batch_size = batch_size
        self._seed = seed
        self._drawn: tuple[int, list[np.ndarray]] = (-1, [])

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def at(self, step: int) -> np.ndarray:
        """Row numbers of a step's batch. The batches of the last requested epoch are cached."""
        epoch, place = divmod(step, len(self))
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self.epoch(epoch))
        return self._drawn[1][place]

    def epoch(self, e: int) -> list[np.ndarray]:
        """The batches of epoch `e`, each an int64 array of row numbers.

        Example:
            >>> batches = LengthGroupedBatches([3, 9, 4, 8], batch_size=2, seed=0).epoch(0)
            >>> sorted(sorted(batch.tolist()) for batch in batches)
            [[0, 2], [1, 3]]
        """
        random = generator(self._seed, "batches", e)
        shuffled = random.permutation(len(self._lengths))
        group_rows = self._batch_size * BATCHES_PER_GROUP
        groups = [shuffled[i : i + group_rows] for i in range(0, len(shuffled), group_rows)]
        by_length = [group[np.argsort(self._lengths[group], kind="stable")] for group in groups]
        batches = [
            group[i : i + self._batch_size]
            for group in by_length
            for i in range(0, len(group), self._batch_size)
        ]
        return [batches[i] for i in random.permutation(len(batches))]


def shortest_first(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All rows in batches of similar length."""
    order = np.argsort(lengths, kind="stable")
    return [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]


def token_batches(lengths: NDArray[np.integer], budget: int) -> Iterator[NDArray[np.int64]]:
    """Indices of each batch of texts of similar length; every index occurs once. A text longer than
    the budget is its own batch. Batches depend only on the lengths, so a killed run that begins
    again makes the same ones.

    Args:
        lengths: (N,).
        budget: maximum number of tokens in a batch, including padding.

    Example:
        >>> [batch.tolist() for batch in token_batches(np.array([5, 2, 2, 4]), 8)]
        [[1, 2], [3], [0]]
    """
    order = np.argsort(lengths, kind="stable")
    begin = 0
    for place, index in enumerate(order):
        if place > begin and (place + 1 - begin) * int(lengths[index]) > budget:
            yield order[begin:place]
            begin = place
    if begin < len(order):
        yield order[begin:]
