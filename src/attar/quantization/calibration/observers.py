"""What one pass over the calibration texts leaves behind, for each site.

Padding is noise that never reaches an output, and one such value can stretch a range: only values
of real tokens are counted, told by the attention mask and never by lengths (`real_tokens`). Kept
for each site, all of it small beside one batch of activations:

    batch extremes     two numbers per batch, in the order of the batches
    token extremes     max_j x_j and min_j x_j over the embedding, two numbers per token
    sums               Σx and Σx² of each batch, in float64
    histogram          of all values, the same in any order and chunking

Probabilities have no token extremes: nothing that clips by token ever clips them.
Left out: the activations themselves; a method that needs them passes over the texts again.
Shape letters: `D` hidden, `N` values that count.
Source of the token extremes: Outlier Suppression (Wei et al. 2022), equation 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attar.quantization.calibration.histogram import Histogram


@dataclass
class SiteStatistics:
    """What a stream of batches leaves behind, the same in any order; only `ema_low` and `ema_high`
    depend on the order of the batches.
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
