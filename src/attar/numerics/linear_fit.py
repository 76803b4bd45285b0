"""Least-squares fit of a linear map from x to y over a stream, and its factorization into a chain.

    W, b = argmin Σ ‖y − W x − b‖² + λ ‖W‖²        λ = ridge · tr(Σ (x − x̄)(x − x̄)ᵀ) / I

Only Σ x xᵀ, Σ y xᵀ, Σ x and Σ y are kept, in float64, so memory is I² + O·I numbers for any number
of tokens. The singular values of W = U S Vᵀ are split evenly over the chain, so that no map starts
near zero and the gradients of all maps have the same size:

    Wₙ … W₁ = (U S^{1/n} Qₙ₋₁ᵀ) … (Q₁ S^{1/n} Vᵀ)       Qᵢ: orthonormal columns, random

Inner widths below the rank keep the largest singular values. Letters: I / O in and out features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from attar.numerics.moments import nothing

linalg: Any = torch.linalg  # its functions have no types


@dataclass
class LinearFit:
    """Accumulated sums over pairs of x (N, I) and y (N, O)."""

    count: int = 0
    xx: Tensor = field(default_factory=nothing)
    yx: Tensor = field(default_factory=nothing)
    x: Tensor = field(default_factory=nothing)
    y: Tensor = field(default_factory=nothing)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add N pairs."""
        x, y = x.detach().double(), y.detach().double()
        self.count += len(x)
        self.xx, self.yx = x.t() @ x + self.xx, y.t() @ x + self.yx
        self.x, self.y = x.sum(dim=0) + self.x, y.sum(dim=0) + self.y

    def solve(self, *, ridge: float, has_bias: bool) -> tuple[Tensor, Tensor | None]:
        """Solve for W (O, I) and b (O,); b is None without a bias.

        Raises:
            ValueError: no pairs were added.
        """
        xx, yx, x, y = self.xx, self.yx, self.x, self.y
        if not self.count:
            raise ValueError("a linear map needs at least one pair to be fitted to")
        if has_bias:
            xx, yx = xx - torch.outer(x, x) / self.count, yx - torch.outer(y, x) / self.count
        weight = ridge * xx.trace() / len(xx)
        eye = torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
        if ridge:
            w: Tensor = linalg.solve(xx + weight * eye, yx.t()).t()
        else:
            w = yx @ linalg.pinv(xx, hermitian=True)
        return w, (y - w @ x) / self.count if has_bias else None


def chain_of(weight: Tensor, inner: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Maps (first one first) with product `weight` (O, I), up to the rank of the inner widths."""
    if not inner:
        return [weight]
    rank = min(*weight.shape, *inner)
    u, s, vh = linalg.svd(weight, full_matrices=False)
    root = s[:rank] ** (1 / (len(inner) + 1))
    bases = [vh[:rank].t()]
    for width in inner:
        drawn = torch.randn(width, rank, generator=generator, dtype=weight.dtype)
        bases.append(linalg.qr(drawn).Q)
    bases.append(u[:, :rank])
    return [(after * root) @ before.t() for before, after in pairwise(bases)]
