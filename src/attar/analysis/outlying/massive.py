"""Tail statistics and massive activations of hidden states.

    kurtosis        E(x − mean)⁴ / std⁴ over all values of a layer; 3 for a normal distribution
    kurtosis, max   maximum over dimensions of the kurtosis of each dimension
    max to median   largest |x| / median |x|

These are continuous, so they distinguish models with the same number of outlier dimensions. A
massive activation is a single value of a single token, thousands of times larger than the rest:

    |h| > 100   and   |h| > 1000 × the median of |values| of the same text in the same hidden state

Medians are over the real tokens of one text, as in the paper, so the result does not depend on the
batch or its padding. They are computed only for texts with a large enough value. Occurrences are
grouped by (hidden state, dimension, token).
Source: kurtosis as in Bondarenko et al. (2023) and Nrusimha et al. (2024); Sun et al. (2024),
"Massive Activations in Large Language Models", section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from attar.analysis.outlying.hidden import HiddenState, Tokens
from attar.numerics.magnitudes import Magnitudes, Peaks
from attar.numerics.moments import Moments


@dataclass
class LayerFigures:
    """Tail statistics of one hidden state."""

    moments: Moments = field(default_factory=Moments)
    magnitudes: Magnitudes = field(default_factory=Magnitudes)
    peaks: Peaks = field(default_factory=Peaks)

    def see(self, values: Tensor) -> None:
        """Count values (N, D)."""
        self.moments = self.moments.merged(Moments.of(values))
        self.magnitudes.see(values)
        self.peaks.see(values)

    def row(self) -> dict[str, Any]:
        kurtosis, median = self.moments.kurtosis, self.magnitudes.median
        whole = self.moments.pooled()
        return {
            "kurtosis": float(whole.kurtosis),
            "largest_kurtosis": float(kurtosis.max()),
            "largest_kurtosis_dimension": int(kurtosis.argmax()),
            "std": float(whole.std),
            "median": median,
            "largest": self.magnitudes.largest,
            "largest_dimension": int(self.peaks.values.argmax()),
            "max_to_median": self.magnitudes.largest / median if median else None,
        }


LEAST, TIMES_THE_MEDIAN = 100.0, 1000.0


@dataclass
class Carried:
    """Massive activations of one token in one dimension of one hidden state."""

    times: int = 0
    value: float = 0.0
    """The value with the largest magnitude."""
    position: int = 0
    """Position of this token in its text, from 0."""
    ratio: float = 0.0
    """Its magnitude divided by the median."""


class Massive:
    """The massive activations of one hidden state."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens, self.seen = tokens, 0
        self.found: dict[tuple[int, int], Carried] = {}
        """(dimension, token id) → its massive activations."""

    def see(self, values: Tensor) -> None:
        """Add the values (N, D) of the next N tokens."""
        start, self.seen = self.seen, self.seen + len(values)
        texts = self.tokens.texts[start : self.seen]
        sizes = values.abs()
        for text in texts[(sizes.amax(dim=1) > LEAST)].unique():
            rows = (texts == text).nonzero().flatten()
            own = sizes[rows]
            median = float(own.median())
            is_massive = (own > LEAST) & (own > TIMES_THE_MEDIAN * median)
            for row, dimension in is_massive.nonzero().tolist():
                place = int(rows[row])
                self._note(start + place, dimension, float(values[place, dimension]), median)

    def _note(self, token: int, dimension: int, value: float, median: float) -> None:
        carried = self.found.setdefault((dimension, int(self.tokens.ids[token])), Carried())
        carried.times += 1
        if abs(value) > abs(carried.value):
            carried.value, carried.position = value, int(self.tokens.positions[token])
            carried.ratio = abs(value) / median if median else 0.0

    @property
    def num_found(self) -> int:
        return sum(carried.times for carried in self.found.values())


def massive_rows(
    found: Mapping[HiddenState, Massive], words: Tokenizer, most: int
) -> list[dict[str, Any]]:
    """One row per hidden state, dimension and token, largest values first."""
    rows: Sequence[dict[str, Any]] = [
        {
            "stack": state.stack,
            "layer": state.index,
            "block": state.block,
            "dimension": dimension,
            "token": words.id_to_token(token) or f"#{token}",
            "position": carried.position,
            "value": carried.value,
            "times": carried.times,
            "times_the_median": carried.ratio,
        }
        for state, massive in found.items()
        for (dimension, token), carried in massive.found.items()
    ]
    return sorted(rows, key=lambda row: -abs(row["value"]))[:most]
