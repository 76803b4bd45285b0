"""How large numbers are: counts of |x| in bins that are the same for every tensor of every model.

Bins are fixed on a logarithmic scale wide enough for anything in float32, so that histograms of two
models, or of the first and the last layer, can be laid side by side:

    bin(x) = ⌊32 · (log2 |x| + 64)⌋,   clamped to 0 … 4095     (each 2.2 % wide, 2⁻⁶⁴ to 2⁶⁴)

Zero is in bin 0. A quantile is known to a bin's width. Left out: signs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

PER_OCTAVE = 32
"""Bins from a number to its double."""
LOWEST, HIGHEST = -64, 64
"""Exponents of two where the bins begin and end."""
BINS = PER_OCTAVE * (HIGHEST - LOWEST)


@dataclass
class Peaks:
    """The largest magnitude in each column of a stream."""

    values: Tensor = field(default_factory=lambda: torch.zeros(()))
    """(D,); () before anything was seen."""

    def see(self, values: Tensor) -> None:
        """Look at values (N, D); N may be 0."""
        if len(values):
            self.values = torch.maximum(self.values, values.abs().amax(dim=0))


@dataclass
class Magnitudes:
    """Counts of a stream of finite numbers."""

    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    largest: float = 0.0

    def see(self, values: Tensor) -> None:
        """Count values of any shape."""
        if not values.numel():
            return
        sizes = values.detach().float().abs().flatten()
        places = ((sizes.log2() - LOWEST) * PER_OCTAVE).clamp_(0, BINS - 1).long()
        self.counts += torch.bincount(places, minlength=BINS)
        self.largest = max(self.largest, float(sizes.max()))

    @property
    def total(self) -> int:
        """Values seen."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """A magnitude that `share` of the values do not exceed, to a bin's width (2.2 %); 0 where
        nothing was seen, or the value lies below every bin.
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
        """Counts in wider bins: k → how many |x| lie in [2^(k/p), 2^((k+1)/p)), those of no value
        left out; what lies below all bins is in the first.

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
