"""Chunks of a shard in batches of about equal work: a pure function of their lengths.

Chunks of similar length are batched together to reduce padding, and a batch has at most a budget of
tokens, padding included. Nothing but the lengths decides, so a killed run that scores a shard again
makes the same batches and, on the same machine, the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def token_batches(lengths: NDArray[np.integer], budget: int) -> Iterator[NDArray[np.int64]]:
    """Indices of each batch; every index once. A chunk beyond the budget is a batch of its own.

    Args:
        lengths: (N,).
        budget: tokens of a batch, padding included.

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


def padded(chunks: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, T) of some chunks, padding after the tokens."""
    length = max(map(len, chunks))
    ids = torch.zeros((len(chunks), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, chunk in enumerate(chunks):
        ids[place, : len(chunk)] = torch.from_numpy(chunk)
        mask[place, : len(chunk)] = 1
    return ids, mask
