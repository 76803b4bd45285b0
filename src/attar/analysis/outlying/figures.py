"""What one figure each says of a hidden state's values: how heavy the tail is, and how long.

    kurtosis        E(x − mean)⁴ / std⁴ over all values of a layer; 3 for a normal distribution
    kurtosis, max   the same of each dimension by itself; the largest one
    max to median   largest |x| / median |x|

They are continuous, and so tell two models apart whose outlier dimensions are equally many: a
distilled one and one distilled otherwise, say. One pass; merged over batches in float64.
Source: kurtosis as in Bondarenko et al. (2023) and Nrusimha et al. (2024); magnitudes against the
median in Sun et al. (2024).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attar.numerics.magnitudes import Magnitudes
from attar.numerics.moments import Moments


@dataclass
class LayerFigures:
    """Of the values of one hidden state."""

    moments: Moments = field(default_factory=Moments)
    magnitudes: Magnitudes = field(default_factory=Magnitudes)
    peaks: Tensor = field(default_factory=lambda: torch.zeros(()))
    """(D,): the largest magnitude in each dimension."""

    def see(self, values: Tensor) -> None:
        """Count values (N, D)."""
        self.moments = self.moments.merged(Moments.of(values))
        self.magnitudes.see(values)
        if len(values):
            self.peaks = torch.maximum(self.peaks, values.abs().amax(dim=0))

    def merge(self, other: LayerFigures) -> None:
        """Count what `other` has seen too."""
        self.moments = self.moments.merged(other.moments)
        self.magnitudes.merge(other.magnitudes)
        self.peaks = torch.maximum(self.peaks, other.peaks)

    def row(self) -> dict[str, Any]:
        """The figures, for a table."""
        kurtosis, median = self.moments.kurtosis, self.magnitudes.median
        whole = self.moments.pooled()
        return {
            "kurtosis": float(whole.kurtosis),
            "largest_kurtosis": float(kurtosis.max()),
            "largest_kurtosis_dimension": int(kurtosis.argmax()),
            "std": float(whole.std),
            "median": median,
            "largest": self.magnitudes.largest,
            "largest_dimension": int(self.peaks.argmax()),
            "max_to_median": self.magnitudes.largest / median if median else None,
        }
