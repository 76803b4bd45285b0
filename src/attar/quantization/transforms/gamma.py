"""Gamma migration: a norm stops scaling its channels, and its readers do it.

Where a norm's γ is large its output has a channel outlier that the normalised tensor did not have.
Taking γ out gives back the milder tensor:

    s = γ,  z = 0:      X' = x̂ + β / γ

A channel whose |γ| is below a hundredth of the median keeps s = 1: it is silent but for β, and β/γ
would make it the largest of all. (At a hundredth an ordinary β, a tenth of an ordinary γ, already
becomes 10, the size of the outliers that migration is to remove.)

Source: Outlier Suppression (Wei et al. 2022), section 4.1 and equation 5.
*Differs from the paper:* the factor 1 where γ ≈ 0 (the last norm of MiniLM-L6 has γ ≈ 1e-9).
"""

from __future__ import annotations

from torch import Tensor

from attar.models.structure.views import NormSite
from attar.quantization.transforms.equivalent import EquivalentTransform

SMALLEST_GAMMA = 1e-2
"""Share of the median |γ| below which a channel counts as silent."""


def gamma_transform(site: NormSite) -> EquivalentTransform:
    """(γ, 0), with 1 for channels whose γ is about 0; negative γ is moved as it is."""
    return EquivalentTransform.of_scale(usable_gamma(site.norm.weight.detach().double()))


def usable_gamma(gamma: Tensor) -> Tensor:
    """γ with 1 where it is about 0.

    Example:
        >>> usable_gamma(Tensor([0.5, 1e-9, 2.0])).tolist()
        [0.5, 1.0, 2.0]
    """
    is_silent = gamma.abs() <= SMALLEST_GAMMA * gamma.abs().median()
    return gamma.masked_fill(is_silent, 1.0)
