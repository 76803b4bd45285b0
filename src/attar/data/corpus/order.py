"""The order of chunks in an epoch, computed instead of stored: which chunk comes at place i.

The problem: a permutation of 10⁸ chunks takes 0.8 GB and a second to draw, and a resumed run must
know its position. The idea: a Feistel network is a permutation of 2²ᵇ numbers for any round
function, so four rounds of a hash keyed with (seed, epoch) shuffle them. Results outside 0 … N − 1
are sent through the network again until they fall inside (cycle walking), at most four times on
average. The order is a pure function of (N, seed, epoch, place): no state, nothing to restore on
resume, O(1) memory. With fewer than `FEW` items there are too few bits for the hash to mix, so some
orders would be more likely than others; their permutation is drawn directly.

The shuffle is good enough for training but not cryptographic: the rounds use splitmix64's
finalizer. Batches are not grouped by length, unlike those of a table, because most chunks are
nearly full.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS, FEW = 4, 64
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Constants of splitmix64's finalizer (Steele, Lea and Flood 2014)."""


@dataclass(frozen=True)
class ChunkBatches:
    """Every chunk exactly once per epoch, in batches of `batch_size`; the last batch of an epoch
    may be smaller."""

    size: int
    """Number of chunks in an epoch."""
    batch_size: int
    seed: int
    is_shuffled: bool = True
    """False: the batches are consecutive chunks, in corpus order."""
    is_numbered_on: bool = False
    """Whether chunk numbers keep counting up across epochs instead of restarting at 0."""

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def at(self, step: int) -> NDArray[np.int64]:
        """Chunk numbers of a step's batch; steps are counted from 0 over all epochs.

        Example:
            >>> [ChunkBatches(5, 2, 0, is_shuffled=False).at(i).tolist() for i in range(4)]
            [[0, 1], [2, 3], [4], [0, 1]]
        """
        epoch, batch = divmod(step, len(self))
        begin = batch * self.batch_size
        places = np.arange(begin, min(begin + self.batch_size, self.size))
        if self.is_shuffled:
            places = shuffled(places, self.size, self.seed, epoch)
        return places + epoch * self.size if self.is_numbered_on else places


def shuffled(places: NDArray[np.integer], size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The items at some places of an epoch's order.

    Args:
        places: numbers from 0 to size − 1, of any shape.

    Returns:
        Items in the same shape. All places together give each item once.

    Example:
        >>> sorted(shuffled(np.arange(5), size=5, seed=1, epoch=0).tolist())
        [0, 1, 2, 3, 4]
    """
    if size < FEW:
        return np.random.default_rng((seed, epoch)).permutation(size)[places]
    half_bits = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    words = np.random.SeedSequence((seed, epoch)).generate_state(ROUNDS, np.uint64)
    keys = words.astype(np.uint64)  # already uint64; the cast is for the type checker
    items = np.asarray(places).astype(np.uint64)
    outside = np.ones(items.shape, np.bool_)
    while outside.any():
        items[outside] = _permuted(items[outside], half_bits, keys)
        outside = items >= np.uint64(size)
    return items.astype(np.int64)


def _permuted(
    numbers: NDArray[np.uint64], half_bits: np.uint64, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = numbers >> half_bits, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << half_bits) | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * MIX[0]
    values = (values ^ (values >> np.uint64(27))) * MIX[1]
    return values ^ (values >> np.uint64(31))
