"""What one pass over the calibration texts leaves behind, for each site.

The problem: a batch is padded, and what a model computes at padding is noise that never reaches an
output; one such value can stretch a range. The idea: an observer sees the tensor at its site, takes
the values of real tokens only, and adds them to statistics that merge exactly. Which values are
real is said by the attention mask, never by lengths, so left padding, right padding and several
texts packed in one row all give the same statistics:

    tokens (B, T, D)            rows whose mask is not 0
    probabilities (B, H, T, T)  pairs (query, key) that are both real and of the same text
    pooled (B, D)               every row: one an example

Left out: the tokens themselves. Methods that clip by token add their own statistic beside these.
Shape letters: `B` batch, `T` tokens, `D` hidden, `H` heads, `N` values that count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from attar.quantization.histogram import Histogram


@dataclass
class SiteStatistics:
    """A stream's extremes, batch by batch, and its histogram. Merging is adding."""

    batch_lows: list[float] = field(default_factory=list)
    batch_highs: list[float] = field(default_factory=list)
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, values: Tensor) -> None:
        """Count the real values of one batch; values that are not finite show in `is_finite`."""
        if values.numel() == 0:
            return
        low, high = (float(end) for end in values.detach().aminmax())
        self.batch_lows.append(low)
        self.batch_highs.append(high)
        if math.isfinite(low) and math.isfinite(high):
            self.histogram.add(values)

    def merge(self, other: SiteStatistics) -> None:
        """Add what another worker saw."""
        self.batch_lows += other.batch_lows
        self.batch_highs += other.batch_highs
        self.histogram.merge(other.histogram)

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, self.batch_lows + self.batch_highs))

    @property
    def mean_low(self) -> float:
        """Mean over batches of the batch minimum, summed exactly: the same in any order."""
        return math.fsum(self.batch_lows) / len(self.batch_lows)

    @property
    def mean_high(self) -> float:
        return math.fsum(self.batch_highs) / len(self.batch_highs)


@dataclass
class RealTokens:
    """Which tokens of the batch in flight count; set before each forward pass, read by observers.

    `texts` (B, T) is 0 at padding and the number of the text elsewhere: an attention mask as it is,
    or, with several texts packed in a row, 1, 1, 2, 2, 2, 0.
    """

    texts: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))

    def values_of(self, x: Tensor) -> Tensor:
        """The values of `x` that belong to real tokens: (N, D), (N, H) for probabilities."""
        if x.ndim == 2:
            return x
        if x.ndim == 4:
            same_text = self.texts[:, :, None] == self.texts[:, None, :]
            is_pair = same_text & (self.texts > 0)[:, :, None]
            return x.movedim(1, -1)[is_pair]
        if x.ndim == 3 and x.shape[:2] == self.texts.shape:
            return x[self.texts > 0]
        raise ValueError(
            f"a site has shape {tuple(x.shape)}, the batch's mask {tuple(self.texts.shape)}"
        )


class Observer(nn.Module):
    """Hands every tensor on as it is, and counts its real values."""

    def __init__(self, real: RealTokens, statistics: SiteStatistics) -> None:
        super().__init__()
        self.real, self.statistics = real, statistics

    def forward(self, x: Tensor) -> Tensor:
        self.statistics.add(self.real.values_of(x))
        return x


def merged(parts: Iterable[SiteStatistics]) -> SiteStatistics:
    """The statistics of several workers as those of one."""
    total = SiteStatistics()
    for part in parts:
        total.merge(part)
    return total
