"""A histogram of a stream whose range is not known in advance.

The bin width is a power of two, and bin edges are multiples of it. When the range no longer fits,
the width doubles and neighbouring bins are merged. Counts are never split, so the histogram does
not depend on the order or chunking of the stream, and two histograms merge by addition.

    bin of x at width 2^e = ⌊x / 2^e⌋,  e the smallest for which the whole range fits MAX_BINS bins
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

MAX_BINS = 8192
"""At least half of the bins are in use, so a bin is at most 1/16 of a step of an 8-bit grid."""
SMALLEST_EXPONENT = -40
"""The smallest bin width is 2^-40: smaller activations are practically zero."""


@dataclass
class Histogram:
    """Counts of values in bins [i·2^exponent, (i+1)·2^exponent), i from `start`."""

    exponent: int = SMALLEST_EXPONENT
    start: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    low: float = np.inf
    high: float = -np.inf

    @property
    def num_values(self) -> int:
        return int(self.counts.sum())

    def add(self, values: Tensor) -> None:
        """Count the values of a tensor of any shape; all must be finite."""
        if values.numel() == 0:
            return
        values = values.detach().flatten()
        low, high = (float(end) for end in values.aminmax())
        exponent = _fitting_exponent(low, high, SMALLEST_EXPONENT)
        start = _bin_of(low, exponent)
        # float64: scaling by a power of two and subtracting nearby bin numbers are exact
        bins = torch.floor(values.to(torch.float64) * 2.0**-exponent) - float(start)
        counts = torch.bincount(bins.to(torch.int64)).numpy()
        self.merge(Histogram(exponent, start, counts, low, high))

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram."""
        if other.counts.size == 0:
            return
        low, high = min(self.low, other.low), max(self.high, other.high)
        exponent = _fitting_exponent(low, high, max(self.exponent, other.exponent))
        start = _bin_of(low, exponent)
        counts = np.zeros(_bin_of(high, exponent) - start + 1, dtype=np.int64)
        for part in (self, other):
            if part.counts.size:
                bins = (np.arange(part.counts.size) + _offset(part, exponent)) >> (
                    exponent - part.exponent
                )
                np.add.at(counts, bins + (_coarse(part, exponent) - start), part.counts)
        self.exponent, self.start, self.counts = exponent, start, counts
        self.low, self.high = low, high

    def quantile(self, share: float) -> float:
        """The `share` quantile (0 … 1), with values spread evenly within each bin."""
        if self.counts.size == 0:
            raise ValueError("a quantile needs at least one value, got none")
        below = np.cumsum(self.counts)
        target = share * below[-1]
        index = int(np.searchsorted(below, target, side="left"))
        before = below[index] - self.counts[index]
        inside = (target - before) / self.counts[index] if self.counts[index] else 0.0
        value = (self.start + index + inside) * 2.0**self.exponent
        return float(min(max(value, self.low), self.high))


def _bin_of(value: float, exponent: int) -> int:
    return int(np.floor(value * 2.0**-exponent))


def _fitting_exponent(low: float, high: float, exponent: int) -> int:
    while _bin_of(high, exponent) - _bin_of(low, exponent) + 1 > MAX_BINS:
        exponent += 1
    return exponent


def _coarse(part: Histogram, exponent: int) -> int:
    """Index of the coarse bin that contains the first bin of `part`."""
    return part.start >> (exponent - part.exponent)


def _offset(part: Histogram, exponent: int) -> int:
    """Number of fine bins between the edge of that coarse bin and the first bin of `part`."""
    return part.start - (_coarse(part, exponent) << (exponent - part.exponent))
