"""Granularity: which values share one scale, and the ranges that follow from it.

`per_tensor`: one range for everything. `per_channel`: one range for each index along an axis; for a
Linear weight (O, I) and an embedding table (V, D) that axis is 0: an output channel, or a row. A
product with per-channel weights needs one multiplication an output, so finer weights are free;
finer activations are not, since their scale would vary along the summed axis. Left out: per_token
and per_group, until a method needs them.
"""

from __future__ import annotations

from torch import Tensor


def per_tensor_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """(minimum, maximum) over all values, each of shape ().

    Raises:
        ValueError: there are no values.
    """
    if x.numel() == 0:
        raise ValueError("a range needs at least one value, got none")
    low, high = x.aminmax()
    return low, high


def per_channel_range(x: Tensor, axis: int = 0) -> tuple[Tensor, Tensor]:
    """(minimum, maximum) for each index along `axis`, each of shape (C,).

    Raises:
        ValueError: there are no values.
    """
    if x.numel() == 0:
        raise ValueError(f"a range needs at least one value, got shape {tuple(x.shape)}")
    low, high = x.movedim(axis, 0).flatten(1).aminmax(dim=1)
    return low, high
