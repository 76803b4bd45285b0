"""Histograms of magnitudes |x| with the same logarithmic bins for all tensors and models.

The fixed bins make histograms of two models, or of the first and the last layer, comparable:

    bin(x) = ⌊32 · (log2 |x| + 64)⌋,   clamped to 0 … 4095     (each 2.2 % wide, 2⁻⁶⁴ to 2⁶⁴)

Zero is in bin 0. Quantiles are accurate to the bin width. Left out: signs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

PER_OCTAVE = 32
"""Bins per factor of two."""
LOWEST, HIGHEST = -64, 64
"""Exponents of two at the ends of the bins."""
BINS = PER_OCTAVE * (HIGHEST - LOWEST)


@dataclass
class Peaks:
    """Maximum magnitude of each column of a stream."""

    values: Tensor = field(default_factory=lambda: torch.zeros(()))
    """(D,), or () if nothing was added."""

    def see(self, values: Tensor) -> None:
        """Add values (N, D); N can be 0."""
        if len(values):
            self.values = torch.maximum(self.values, values.abs().amax(dim=0))


@dataclass
class Magnitudes:
    """Histogram of the magnitudes of a stream of finite numbers."""

    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    largest: float = 0.0

    def see(self, values: Tensor) -> None:
        """Add values of any shape."""
        if not values.numel():
            return
        sizes = values.detach().float().abs().flatten()
        places = ((sizes.log2() - LOWEST) * PER_OCTAVE).clamp_(0, BINS - 1).long()
        self.counts += torch.bincount(places, minlength=BINS)
        self.largest = max(self.largest, float(sizes.max()))

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The `share` quantile of the magnitudes, accurate to the bin width (2.2 %); 0 if there are
        no values or if it is below all bins.
        """
        reached = self.counts.cumsum(0) >= max(share * self.total, 1)
        place = int(reached.long().argmax())
        if place == 0:
            return 0.0
        return min(2.0 ** (LOWEST + (place + 0.5) / PER_OCTAVE), self.largest)

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    def coarse(self, per_octave: int) -> dict[int, int]:
        """Counts in wider bins: k → number of |x| in [2^(k/p), 2^((k+1)/p)), without empty bins;
        smaller values are in the first bin.

        Args:
            per_octave: p, a divisor of 32.

        Example:
            >>> seen = Magnitudes()
            >>> seen.see(torch.tensor([1.0, -1.1, 4.0]))
            >>> seen.coarse(2)
            {0: 2, 4: 1}
        """
        sums = self.counts.view(-1, PER_OCTAVE // per_octave).sum(1)
        first = LOWEST * per_octave
        return {first + int(k): int(sums[k]) for k in sums.nonzero().flatten()}
