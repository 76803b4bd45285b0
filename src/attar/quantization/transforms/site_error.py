"""Quantization error of the layers that read a tensor, with and without a transform.

A transform is evaluated by the outputs of the readers: channels with small weights may be coarse,
and a scale moved into the weights makes *these* harder to quantize. So the rows X' and the weights
W' are both quantized, and every reader is compared with its float output:

    map        ‖X'_q W'_qᵀ + W z − Y Wᵀ‖² / ‖Y Wᵀ − mean over tokens‖²
    shortcut   ‖s ⊙ X'_q + z − Y‖² / ‖Y − mean over tokens‖²

The signal is the variation between tokens: channel outliers are mostly a constant offset, which
would make errors look small. The SQNR of a site is the mean over its readers, in dB, for two
ranges that a range finder may choose: all values, and the range with one token in a hundred clipped
on either side.
Shape letters: `N` tokens, `D` hidden, `O` total out features of all linear readers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attar.numerics.affine import choose_qparams, fake_quantize, per_channel_range
from attar.quantization.transforms.equivalent import EquivalentTransform, TransformSite

CLIPPED_TOKENS = 0.01
"""Fraction of tokens whose maximum (minimum) the second range clips."""
LEAST_SIGNAL = 1e-30
"""Lower bound of the signal energy, for sites whose signal is zero."""


@dataclass(frozen=True)
class SiteSqnr:
    """SQNR in dB of a site's readers under the two ranges."""

    all_values: float
    clipped: float

    @property
    def mean(self) -> float:
        return (self.all_values + self.clipped) / 2

    def is_no_worse_than(self, other: SiteSqnr) -> bool:
        return self.all_values >= other.all_values and self.clipped >= other.clipped


class SiteError:
    """The readers of one tensor and their float outputs on a sample of it."""

    def __init__(
        self, site: TransformSite, rows: Tensor, *, weight_bits: int, activation_bits: int
    ) -> None:
        """
        Args:
            rows: input of the tensor's first reader, (N, D).
        """
        self.site, self.rows = site, rows.float()
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        self.weight = torch.cat([c.weight.detach().float() for c in site.consumers])
        self.sizes = [consumer.out_features for consumer in site.consumers]
        self.outputs = self.rows @ self.weight.T
        self.signals = [_signal(part) for part in self.outputs.split(self.sizes, dim=1)]
        self.shortcut_signal = _signal(self.rows)

    def sqnr(self, transform: EquivalentTransform) -> SiteSqnr:
        """SQNR of `transform` under both ranges."""
        x = transform.forward(self.rows)
        lows, highs = x.aminmax(dim=1)
        weight = _on_weight_grid(self.weight * transform.scale.float(), self.weight_bits)
        everything = self._db(transform, x, weight, lows.min(), highs.max())
        low, high = lows.quantile(CLIPPED_TOKENS), highs.quantile(1 - CLIPPED_TOKENS)
        return SiteSqnr(everything, self._db(transform, x, weight, low, high))

    def _db(
        self, transform: EquivalentTransform, x: Tensor, weight: Tensor, low: Tensor, high: Tensor
    ) -> float:
        grid = choose_qparams(low, high, self.activation_bits, symmetric=False)
        rounded = fake_quantize(x, grid)
        outputs = rounded @ weight.T + self.weight @ transform.shift.float()
        parts = (outputs - self.outputs).split(self.sizes, dim=1)
        noises = [_energy(part) / signal for part, signal in zip(parts, self.signals, strict=True)]
        for _ in self.site.shortcuts:
            restored = transform.inverse(rounded)
            noises.append(_energy(restored - self.rows) / self.shortcut_signal)
        noise = sum(noises) / len(noises)
        return -10 * math.log10(noise) if noise > 0 else math.inf


def _on_weight_grid(weight: Tensor, bits: int) -> Tensor:
    low, high = per_channel_range(weight)
    return fake_quantize(weight, choose_qparams(low, high, bits, symmetric=True), axis=0)


def _energy(x: Tensor) -> float:
    return float(x.square().sum(dtype=torch.float64))


def _signal(x: Tensor) -> float:
    return max(_energy(x - x.mean(0)), LEAST_SIGNAL)
