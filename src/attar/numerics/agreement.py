"""Agreement of two tensors: signal-to-quantization-noise ratio (SQNR) in dB, and cosine similarity.

`sqnr_db` does not depend on the scale of the values, increases by about 6.02 dB per bit, and can be
accumulated over batches (`SqnrSum`). The cosine is common in the quantization literature; close to
1, it hides differences that are visible in decibels (99.99 % is 37 dB).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SqnrSum:
    """Energies of a signal and of its error, summed over batches. Sums can be added."""

    signal: float = 0.0
    error: float = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add a piece of the signal `x` and of its approximation `y`."""
        x = x.detach().to(torch.float64)
        self.signal += float(x.square().sum())
        self.error += float((x - y.detach()).square().sum())

    @property
    def db(self) -> float:
        """10·log10(signal / error): ∞ without error, −∞ if only the signal is zero."""
        if self.error == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal > 0 else -math.inf


@dataclass
class CosineSum:
    """Inner products of two signals, summed over batches, for the cosine of the whole streams."""

    product: float = 0.0
    first: float = 0.0
    second: float = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add a piece of both signals."""
        a, b = x.detach().to(torch.float64).flatten(), y.detach().to(torch.float64).flatten()
        self.product += float(a @ b)
        self.first += float(a @ a)
        self.second += float(b @ b)

    @property
    def cosine(self) -> float:
        """Cosine, −1 … 1; 0 if one of the signals is all zeros."""
        norms = math.sqrt(self.first) * math.sqrt(self.second)
        return 0.0 if norms == 0 else self.product / norms


def sqnr_db(x: Tensor, y: Tensor) -> float:
    """20·log10(‖x‖ / ‖x − y‖) in dB: 0 if the error is as large as the signal, ∞ without error.

    Example:
        >>> round(sqnr_db(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.05])), 3)
        40.0
    """
    total = SqnrSum()
    total.add(x, y)
    return total.db


def cosine(x: Tensor, y: Tensor) -> float:
    """Cosine similarity of two tensors as vectors, −1 … 1; 0 if one of them is all zeros."""
    total = CosineSum()
    total.add(x, y)
    return total.cosine


def finite_or_none(value: float) -> float | None:
    """Replace infinity by None, for JSON. For decibels, null means no error.

    Example:
        >>> finite_or_none(41.5), finite_or_none(math.inf)
        (41.5, None)
    """
    return value if math.isfinite(value) else None
