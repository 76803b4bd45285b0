"""Gamma migration: moves the scale γ of a norm into the layers that read its output.

A channel with large γ is an outlier of the norm's output that the normalized tensor does not have.
Without γ, the tensor is easier to quantize:

    s = γ,  z = 0:      X' = x̂ + β / γ

A channel with |γ| below a hundredth of the median keeps s = 1: its output is practically constant
at β, and β/γ would be the largest channel. (At a hundredth of the median γ, a typical β of a tenth
of it already gives β/γ = 10, the size of the outliers that migration should remove.)

Source: Outlier Suppression (Wei et al. 2022), section 4.1 and equation 5.
*Differs from the paper:* the factor 1 where γ ≈ 0 (the last norm of MiniLM-L6 has γ ≈ 1e-9).
"""

from __future__ import annotations

from torch import Tensor

from attar.models.structure.views import NormSite
from attar.quantization.transforms.equivalent import EquivalentTransform

SMALLEST_GAMMA = 1e-2
"""Fraction of the median |γ| below which γ counts as 0."""


def gamma_transform(site: NormSite) -> EquivalentTransform:
    """Scale γ and shift 0. The scale is 1 where γ is about 0; negative γ is allowed."""
    return EquivalentTransform.of_scale(usable_gamma(site.norm.weight.detach().double()))


def usable_gamma(gamma: Tensor) -> Tensor:
    """Replace γ by 1 where it is about 0.

    Example:
        >>> usable_gamma(Tensor([0.5, 1e-9, 2.0])).tolist()
        [0.5, 1.0, 2.0]
    """
    is_silent = gamma.abs() <= SMALLEST_GAMMA * gamma.abs().median()
    return gamma.masked_fill(is_silent, 1.0)
