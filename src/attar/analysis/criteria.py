"""When a hidden dimension is an outlier of a norm's output.

    gamma_3sigma     |γ_j − mean(γ)| > 3 · std(γ)             (no text is read)
    activation_std   s_j − mean(s) > 3 · std(s),   s_j = std over tokens of y_j

A dimension's *deviation* is the left side over the standard deviation, so that 3 is the border for
both. One dimension of D can deviate by at most √(D−1) standard deviations, and k equal ones by
about √(D/k): in a model of ten dimensions or fewer nothing is ever an outlier.
Source: `gamma_3sigma` and `activation_std` as in the EOFD paper (NAACL 2025), appendix H.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attar.analysis.config import Criterion
from attar.analysis.norms import PlacedNorm
from attar.analysis.subject import Subject
from attar.models.structure.sites import Site

BORDER = 3.0
"""Standard deviations."""


class Spread:
    """Mean and standard deviation over tokens of every dimension, batch by batch, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())
        """Sum of squared distances from the mean."""

    def see(self, values: Tensor) -> None:
        """Count values (N, D), merging as Chan et al. (1979) do."""
        values = values.double()
        count, mean = len(values), values.mean(dim=0)
        total, step = self.count + count, mean - self.mean
        own = (values - mean).square().sum(dim=0)
        self.squares = self.squares + own + step.square() * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total

    @property
    def std(self) -> Tensor:
        """(D,)"""
        return (self.squares / self.count).sqrt()


def deviations(
    criterion: Criterion, norms: Sequence[PlacedNorm], subject: Subject
) -> Mapping[Site, Tensor]:
    """Norm → how many standard deviations each dimension lies off, (D,); above `BORDER` it is an
    outlier.
    """
    if not reads_texts(criterion):
        return {norm.site: standardised(norm.gamma).abs() for norm in norms}
    spreads = {norm.site: Spread() for norm in norms}
    subject.watch({site: spread.see for site, spread in spreads.items()}, "spread of activations")
    return {site: standardised(spread.std) for site, spread in spreads.items()}


def reads_texts(criterion: Criterion) -> bool:
    """Whether activations are looked at; a norm's γ is there without a text."""
    return criterion == "activation_std"


def standardised(values: Tensor) -> Tensor:
    """(values − mean) / std; zeros where all values are alike.

    Example:
        >>> standardised(torch.tensor([1.0, 1.0, 4.0]).double()).round(decimals=2).tolist()
        [-0.71, -0.71, 1.41]
    """
    off = values - values.mean()
    std = off.square().mean().sqrt()
    return off / std if float(std) > 0 else torch.zeros_like(off)


def outlying(deviation: Tensor) -> list[int]:
    """The dimensions beyond the border, the farthest first."""
    order = torch.argsort(deviation, descending=True, stable=True)
    return [int(j) for j in order if float(deviation[j]) > BORDER]
