"""Statistics collected at each site in one pass over the calibration texts.

Padding never reaches an output, but a single padding value can widen a range. So only values of
real tokens are counted, according to the attention mask (`real_tokens`). Per site, these are kept;
together they are small compared to one batch of activations:

    batch extremes     two numbers per batch, in the order of the batches
    token extremes     max_j x_j and min_j x_j over the embedding, two numbers per token
    sums               Σx and Σx² of each batch, in float64
    histogram          of all values, the same in any order and chunking

Attention probabilities have no token extremes, because token-wise clipping never clips them.
Left out: the activations themselves. A method that needs them runs the model again.
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
    """Statistics of a stream of batches. Only `ema_low` and `ema_high` depend on the order of the
    batches.
    """

    batch_lows: list[float] = field(default_factory=list)
    batch_highs: list[float] = field(default_factory=list)
    token_lows: list[Tensor] = field(default_factory=list)
    """Per batch, the minimum of each real token. Empty for probabilities."""
    token_highs: list[Tensor] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    """Σx of each batch."""
    squares: list[float] = field(default_factory=list)
    """Σx² of each batch."""
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, values: Tensor, *, by_token: bool = True) -> None:
        """Add the unpadded values of one batch. NaN or infinite values make `is_finite` False.

        Args:
            values: (N, D), or (D,) for a single token.
            by_token: whether to keep the extremes of each row.
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
        """Minimum over all batches."""
        return min(self.batch_lows)

    @property
    def high(self) -> float:
        return max(self.batch_highs)

    @property
    def mean_low(self) -> float:
        """Mean over batches of the batch minimum, with exact summation."""
        return math.fsum(self.batch_lows) / len(self.batch_lows)

    @property
    def mean_high(self) -> float:
        return math.fsum(self.batch_highs) / len(self.batch_highs)

    def ema_low(self, momentum: float) -> float:
        """Exponential moving average of the batch minimum, in the order of the batches."""
        return _moving_average(self.batch_lows, momentum)

    def ema_high(self, momentum: float) -> float:
        return _moving_average(self.batch_highs, momentum)

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return math.fsum(self.sums) / self.histogram.num_values

    @property
    def std(self) -> float:
        """√(mean of x² − (mean of x)²) of all values. The subtraction cancels leading digits: in
        float64 about seven remain when the mean is ten thousand times σ.
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
