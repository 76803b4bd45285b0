"""What one pass over the calibration texts leaves behind, for each site.

The problem: a batch is padded, and what a model computes at padding is noise that never reaches an
output; one such value can stretch a range. The idea: an observer sees the tensor at its site, takes
the values of real tokens only, and adds them to statistics that merge exactly. Which values are
real is said by the attention mask, never by lengths (`real_tokens`), so left padding, right padding
and several texts packed in one row all give the same statistics.

Kept for each site, all of it small beside one batch of activations:

    batch extremes     two numbers a batch, in the order of the batches
    token extremes     max_j x_j and min_j x_j over the embedding, two numbers per token
    sums               Σx and Σx² of each batch, in float64
    histogram          of all values, exact under merging

Probabilities have no token extremes: nothing that clips by token ever clips them.

Left out: the activations themselves; a method that needs them passes over the texts again.
Shape letters: `B` batch, `T` tokens, `D` hidden, `H` heads, `N` values that count.
Source of the token extremes: Outlier Suppression (Wei et al. 2022), equation 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from attar.quantization.calibration.histogram import Histogram
from attar.quantization.calibration.real_tokens import RealTokens, TokensAt


@dataclass
class SiteStatistics:
    """What a stream of batches leaves behind. Merging is adding: two halves make the whole, bit for
    bit, in any order; only `ema_low` and `ema_high` ask for the batches in their order.
    """

    batch_lows: list[float] = field(default_factory=list)
    batch_highs: list[float] = field(default_factory=list)
    token_lows: list[Tensor] = field(default_factory=list)
    """One vector a batch: the smallest value of each real token. Empty for probabilities."""
    token_highs: list[Tensor] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    """Of the values of each batch."""
    squares: list[float] = field(default_factory=list)
    """Of the squared values of each batch."""
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, values: Tensor, *, by_token: bool = True) -> None:
        """Count the real values of one batch; values that are not finite show in `is_finite`.

        Args:
            values: (N, D), or (D,) for one token alone.
            by_token: keep the extremes of each row.
        """
        if values.numel() == 0:
            return
        values = values.detach()
        if by_token:
            lows, highs = values.reshape(-1, values.shape[-1]).aminmax(dim=1)
            self.token_lows.append(lows)
            self.token_highs.append(highs)
            low, high = float(lows.min()), float(highs.max())
        else:
            low, high = (float(end) for end in values.aminmax())
        self.batch_lows.append(low)
        self.batch_highs.append(high)
        if math.isfinite(low) and math.isfinite(high):
            exact = values.flatten().to(torch.float64)
            self.sums.append(float(exact.sum()))
            self.squares.append(float(exact @ exact))
            self.histogram.add(values)

    def merge(self, other: SiteStatistics) -> None:
        """Add what another worker saw, its batches behind ours."""
        self.batch_lows += other.batch_lows
        self.batch_highs += other.batch_highs
        self.token_lows += other.token_lows
        self.token_highs += other.token_highs
        self.sums += other.sums
        self.squares += other.squares
        self.histogram.merge(other.histogram)

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, self.batch_lows + self.batch_highs))

    @property
    def low(self) -> float:
        """The smallest value of all batches."""
        return min(self.batch_lows)

    @property
    def high(self) -> float:
        return max(self.batch_highs)

    @property
    def mean_low(self) -> float:
        """Mean over batches of the batch minimum, summed exactly: the same in any order."""
        return math.fsum(self.batch_lows) / len(self.batch_lows)

    @property
    def mean_high(self) -> float:
        return math.fsum(self.batch_highs) / len(self.batch_highs)

    def ema_low(self, momentum: float) -> float:
        """Moving average of the batch minimum, from the first batch to the last."""
        return _moving_average(self.batch_lows, momentum)

    def ema_high(self, momentum: float) -> float:
        return _moving_average(self.batch_highs, momentum)

    @property
    def mean(self) -> float:
        """Of all values."""
        return math.fsum(self.sums) / self.histogram.num_values

    @property
    def std(self) -> float:
        """√(mean of x² − (mean of x)²) of all values. The difference loses the digits that the two
        share; in float64 that leaves seven where the mean is ten thousand times σ.
        """
        mean_square = math.fsum(self.squares) / self.histogram.num_values
        return math.sqrt(max(mean_square - self.mean**2, 0.0))

    @property
    def has_tokens(self) -> bool:
        """Whether token extremes were kept."""
        return bool(self.token_highs)


def _moving_average(values: list[float], momentum: float) -> float:
    average = values[0]
    for value in values[1:]:
        average = momentum * average + (1 - momentum) * value
    return average


class Observer(nn.Module):
    """Hands every tensor on as it is, and counts its real values."""

    def __init__(self, real: RealTokens | TokensAt, statistics: SiteStatistics) -> None:
        super().__init__()
        self.real, self.statistics = real, statistics

    def forward(self, x: Tensor) -> Tensor:
        # (B, H, T, S) are probabilities: no row of theirs is a token's embedding
        self.statistics.add(self.real.values_of(x), by_token=x.ndim != 4)
        return x


def merged(parts: Iterable[SiteStatistics]) -> SiteStatistics:
    """The statistics of several workers as those of one."""
    total = SiteStatistics()
    for part in parts:
        total.merge(part)
    return total
