"""Streaming computation of the first four moments of columns.

Every chunk is summed around its own mean (raw fourth powers would lose all precision if the mean is
far from zero), and chunks are merged exactly, so that the result does not depend on the chunking.
With δ the difference of the means of A and B, n = n_A + n_B and
M_k = Σ (x − mean)^k:

    M2 = M2_A + M2_B + δ² n_A n_B / n
    M3 = M3_A + M3_B + δ³ n_A n_B (n_A − n_B) / n² + 3δ (n_A M2_B − n_B M2_A) / n
    M4 = M4_A + M4_B + δ⁴ n_A n_B (n_A² − n_A n_B + n_B²) / n³
         + 6δ² (n_A² M2_B + n_B² M2_A) / n² + 4δ (n_A M3_B − n_B M3_A) / n

Everything is float64. Shape letters: `N` values, `D` columns.
Source: Chan, Golub and LeVeque (1979) for M2; Pébay (2008) for M3 and M4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


def nothing() -> Tensor:
    """The sum of no tensors of any shape, in float64."""
    return torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class Moments:
    """Moments of D columns, or of a scalar. `Moments()` is empty and can be merged with either."""

    count: int = 0
    mean: Tensor = field(default_factory=nothing)
    m2: Tensor = field(default_factory=nothing)
    m3: Tensor = field(default_factory=nothing)
    m4: Tensor = field(default_factory=nothing)

    @staticmethod
    def of(values: Tensor) -> Moments:
        """Moments of the columns of values (N, D); N can be 0."""
        if not len(values):
            return Moments()
        values = values.double()
        mean = values.mean(dim=0)
        off = values - mean
        squares = off.square()
        cubes, fourths = (squares * off).sum(dim=0), squares.square().sum(dim=0)
        return Moments(len(values), mean, squares.sum(dim=0), cubes, fourths)

    def merged(self, other: Moments) -> Moments:
        """Moments of both streams together."""
        a, b, n = self.count, other.count, self.count + other.count
        if not a or not b:
            return other if not a else self
        off = other.mean - self.mean
        m2 = self.m2 + other.m2 + off**2 * (a * b / n)
        m3 = self.m3 + other.m3 + off**3 * (a * b * (a - b) / n**2)
        m3 = m3 + 3 * off * (a * other.m2 - b * self.m2) / n
        m4 = self.m4 + other.m4 + off**4 * (a * b * (a * a - a * b + b * b) / n**3)
        m4 = m4 + 6 * off**2 * (a * a * other.m2 + b * b * self.m2) / n**2
        m4 = m4 + 4 * off * (a * other.m3 - b * self.m3) / n
        return Moments(n, self.mean + off * (b / n), m2, m3, m4)

    def pooled(self) -> Moments:
        """Moments of the values of all columns as one stream."""
        mean = self.mean.mean()
        off = self.mean - mean
        m2 = self.m2 + self.count * off**2
        m3 = self.m3 + 3 * off * self.m2 + self.count * off**3
        m4 = self.m4 + 4 * off * self.m3 + 6 * off**2 * self.m2 + self.count * off**4
        return Moments(self.count * self.mean.numel(), mean, m2.sum(), m3.sum(), m4.sum())

    @property
    def std(self) -> Tensor:
        """Population standard deviation (divided by N), (D,)."""
        return (self.m2 / max(self.count, 1)).sqrt()

    @property
    def kurtosis(self) -> Tensor:
        """Kurtosis E(x − mean)⁴ / std⁴, (D,), at least 1; 3 for a normal distribution, 0 if all
        values are equal.

        Example:
            >>> Moments.of(torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])).kurtosis.tolist()
            [1.0]
        """
        return self.count * self.m4 / self.m2.square().where(self.m2 > 0, 1)
