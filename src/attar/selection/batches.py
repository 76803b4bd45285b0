"""Chunks of a shard in batches of about equal cost: a pure function of their lengths.

Chunks of similar length are batched together to reduce padding, and a batch has at most a given
number of tokens, including padding. Batches depend only on the lengths, so a killed run that scores
a shard again makes the same batches and, on the same machine, gets bit-identical results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def token_batches(lengths: NDArray[np.integer], budget: int) -> Iterator[NDArray[np.int64]]:
    """Indices of each batch; every index occurs once. A chunk longer than the budget is its own
    batch.

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


def padded(chunks: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, T) of some chunks, padded on the right."""
    length = max(map(len, chunks))
    ids = torch.zeros((len(chunks), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, chunk in enumerate(chunks):
        ids[place, : len(chunk)] = torch.from_numpy(chunk)
        mask[place, : len(chunk)] = 1
    return ids, mask
