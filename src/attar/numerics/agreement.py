"""How well one tensor agrees with another: signal to error in decibels, and the cosine of their
angle.

`sqnr_db` does not depend on the scale of the values, adds about 6.02 dB for each bit of a grid, and
sums over pieces, so that one figure can cover a stream of batches (`SqnrSum`). The cosine is what
the quantization literature's tables print; near 1 it hides differences that decibels show (99.99 %
is 37 dB).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SqnrSum:
    """Energies of a signal and of its error, summed over batches; two sums merge by adding them."""

    signal: float = 0.0
    error: float = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Count one more piece of the signal `x` and of what became of it, `y`."""
        x = x.detach().to(torch.float64)
        self.signal += float(x.square().sum())
        self.error += float((x - y.detach()).square().sum())

    @property
    def db(self) -> float:
        """10·log10(signal / error); infinite without error, −infinite for a wrong answer to
        silence.
        """
        if self.error == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal > 0 else -math.inf


@dataclass
class CosineSum:
    """Products of a signal with another, summed over batches: the cosine of the whole streams."""

    product: float = 0.0
    first: float = 0.0
    second: float = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Count one more piece of both."""
        a, b = x.detach().to(torch.float64).flatten(), y.detach().to(torch.float64).flatten()
        self.product += float(a @ b)
        self.first += float(a @ a)
        self.second += float(b @ b)

    @property
    def cosine(self) -> float:
        """−1 … 1; 0 when one of the streams is all zeros."""
        norms = math.sqrt(self.first) * math.sqrt(self.second)
        return 0.0 if norms == 0 else self.product / norms


def sqnr_db(x: Tensor, y: Tensor) -> float:
    """20·log10(‖x‖ / ‖x − y‖), in decibels: 0 when the error is as large as the signal, infinite
    when there is none.

    Example:
        >>> round(sqnr_db(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.05])), 3)
        40.0
    """
    total = SqnrSum()
    total.add(x, y)
    return total.db


def cosine(x: Tensor, y: Tensor) -> float:
    """Cosine of the angle between two tensors seen as vectors, −1 … 1; 0 when one of them is all
    zeros.
    """
    total = CosineSum()
    total.add(x, y)
    return total.cosine


def finite_or_none(value: float) -> float | None:
    """A figure for JSON, which knows no infinity: of decibels, null means that nothing was lost.

    Example:
        >>> finite_or_none(41.5), finite_or_none(math.inf)
        (41.5, None)
    """
    return value if math.isfinite(value) else None
