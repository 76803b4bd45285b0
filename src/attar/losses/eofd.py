"""Outlier-focused weights: dimensions in which the teacher's hidden states vary most count most.

The problem: a few hidden dimensions carry values far beyond the others, and disabling them hurts a
model far more than disabling as many others; a plain mean over dimensions lets a student miss them.
The idea: each dimension is weighted by its spread in the teacher, in units of the mean spread,
raised to a power p:

    std_d = standard deviation of H^t_d over all tokens of the batch     w_d = (std_d / mean std)^p
    loss  = mean( w_d · (H^s W − H^t)_d² )

p = 0 is the plain hidden MSE. A batch that is cut into micro-batches has one spread all the same:
means and squares of the pieces are merged exactly. Kept over batches ("running"), the spread is the
data's and no longer changes from step to step by chance. With δ the difference of two means:

    n = n_A + n_B                        mean = mean_A + δ · n_B / n
    squares = squares_A + squares_B + δ² · n_A · n_B / n

Left out: weights by token, and by anything that the student does.
Source: the appendix "Code for the Emergent Outlier Focused Distillation Loss" of the EOFD paper
(NAACL 2025); Chan, Golub, LeVeque (1979) for the merging.
*Differs from the paper*: padding is left out, unless count_padding asks for it; running spreads.

Shapes: N tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Spread:
    """Count, mean, and sum of squared distances from the mean, of each dimension."""

    count: Int[Tensor, ""]
    mean: Float[Tensor, " D"]
    squares: Float[Tensor, " D"]

    @staticmethod
    def of(states: Float[Tensor, "N D"]) -> Spread:
        """Of tokens at hand; there may be none. In float32 at least: summed in bf16, a standard
        deviation is off by up to 0.7 %."""
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        count = torch.tensor(len(states), device=states.device)
        mean = wide.sum(dim=0) / max(len(states), 1)
        return Spread(count, mean, (wide - mean).square().sum(dim=0))

    def merged(self, other: Spread) -> Spread:
        """Of the tokens of both.

        Law: whatever the cut, and in whatever order, the merged spread of the pieces is that of the
        whole, to rounding.
        """
        count = self.count + other.count
        share = other.count.to(self.mean.dtype) / count.clamp(min=1)
        off = other.mean - self.mean
        squares = self.squares + other.squares + off.square() * (self.count * share)
        return Spread(count, self.mean + off * share, squares)

    @staticmethod
    def of_all(pieces: Iterable[Float[Tensor, "_ D"]]) -> Spread:
        """Of a whole that comes in at least one piece."""
        return reduce(Spread.merged, map(Spread.of, pieces))

    @property
    def std(self) -> Float[Tensor, " D"]:
        """As torch's: unbiased, divided by one less than the count. A single token has none: 0."""
        return (self.squares / (self.count - 1).clamp(min=1)).sqrt()


def outlier_weights(std: Float[Tensor, " D"], power: float) -> Float[Tensor, " D"]:
    """(std / mean of std)^power.

    Law: power 0 gives ones; a factor on all of std changes nothing. Where nothing varies, as in a
    batch of one token, no dimension stands out and all weights are 1.

    Args:
        std: of the teacher's states, not negative.
        power: 0 or more; 1: in proportion to the spread.

    Example:
        >>> outlier_weights(torch.tensor([1.0, 1.0, 4.0]), 0.5).tolist()
        [0.7071067690849304, 0.7071067690849304, 1.4142135381698608]
    """
    mean = std.mean()
    return torch.where(mean > 0, std / mean, 1.0).pow(power)


def effective_dimensions(weights: Float[Tensor, " D"]) -> float:
    """(Σ w)² / Σ w²: over how many dimensions the weight is spread, 1..D; D where all are alike.

    Example:
        >>> effective_dimensions(torch.tensor([1.0, 1.0, 0.0, 0.0]))
        2.0
    """
    return float(weights.sum().square() / weights.square().sum())
