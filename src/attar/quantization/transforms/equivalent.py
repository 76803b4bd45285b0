"""An equivalent transform: a norm's output made easier to round, and the model left as it was.

The problem: one grid for a tensor whose channels differ a hundredfold spends its points on a few of
them. The idea: give every channel a scale s and a shift z of its own, and move both into whatever
reads the tensor. A norm ends with an affine map and its readers begin with a linear one, so nothing
is left to compute:

    norm        y = γ ⊙ x̂ + β     becomes   X' = (y − z) / s:   γ' = γ / s,  β' = (β − z) / s
    reader      y Wᵀ + b           becomes   X' W'ᵀ + b':        W' = W diag(s),  b' = b + W z
    shortcut    y                  becomes   s ⊙ X' + z          (`Restore`)

Methods differ only in how they choose (s, z). A second transform of the same norm composes with the
first. Everything is computed in float64 and rounded to the parameter's type once.

A norm is left alone where a reader is unknown, or where a weight of its own or of a reader also
stands somewhere else (tied to an embedding, shared by two maps): scaling it there would change what
is computed, and scaling it once for each of its names would do so twice. z is 0 where the norm or
one of its readers has no bias to take it in.

Left out: transforms between two linear maps (values and the output map), which need no norm.
Source: Outlier Suppression (Wei et al. 2022), equations 5, 10 and 11; the shift from Outlier
Suppression+ (Wei et al. 2023), section 4.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.structure.anatomy import Anatomy
from attar.models.structure.shortcuts import insert_restore_
from attar.models.structure.views import NormSite


@dataclass(frozen=True)
class EquivalentTransform:
    """X' = (y − shift) / scale, channel by channel; both (D,) and float64, no scale is 0."""

    scale: Tensor
    shift: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", self.scale.detach().to(torch.float64))
        object.__setattr__(self, "shift", self.shift.detach().to(torch.float64))
        is_usable = torch.isfinite(self.scale) & torch.isfinite(self.shift) & (self.scale != 0)
        if self.scale.shape != self.shift.shape or not bool(is_usable.all()):
            raise ValueError(
                f"a transform needs a finite scale that is not 0 and a finite shift for each "
                f"channel, got {self.scale.numel()} scales, {self.shift.numel()} shifts, "
                f"{int((~is_usable).sum())} of them unusable"
            )

    @classmethod
    def of_scale(cls, scale: Tensor) -> EquivalentTransform:
        """Without a shift."""
        return cls(scale, torch.zeros_like(scale))

    def forward(self, y: Tensor) -> Tensor:
        """What the norm gives instead of `y`, (…, D)."""
        return (y - self.shift.to(y.dtype)) / self.scale.to(y.dtype)

    def inverse(self, x: Tensor) -> Tensor:
        """What a shortcut makes of it again."""
        return x * self.scale.to(x.dtype) + self.shift.to(x.dtype)


def can_shift(site: NormSite) -> bool:
    """Norm and readers all have a bias, so that a shift has somewhere to go."""
    return site.norm.bias is not None and all(c.bias is not None for c in site.consumers)


def reasons_to_leave(model: PreTrainedModel, anatomy: Anatomy) -> Mapping[str, str]:
    """Name of each norm that no transform can be moved across → why."""
    shared = _shared_memory(model)
    reasons: dict[str, str] = {}
    for site in anatomy.norm_sites:
        reason = _reason_to_leave(site, shared)
        if reason:
            reasons[site.norm.fqn] = reason
    return reasons


def apply_(model: PreTrainedModel, site: NormSite, transform: EquivalentTransform) -> None:
    """Fold `transform` into `model` at `site`, which belongs to it.

    Raises:
        ModelError: a transform cannot be moved across this norm, or its shift cannot.
        ValueError: the transform has another number of channels than the norm.
    """
    scale, shift = transform.scale, transform.shift
    if scale.shape != site.norm.weight.shape:
        raise ValueError(
            f"{site.norm.fqn} has {site.norm.weight.numel()} channels, the transform "
            f"{scale.numel()}"
        )
    reason = _reason_to_leave(site, _shared_memory(model))
    if reason:
        raise ModelError(f"no transform can be moved across {site.norm.fqn}: {reason}")
    is_shifted = bool((shift != 0).any())
    if is_shifted and not can_shift(site):
        raise ModelError(
            f"a shift cannot be moved across {site.norm.fqn}: it or one of its readers has no bias"
        )
    with torch.no_grad():
        for consumer in site.consumers:
            weight = consumer.weight.to(torch.float64)
            if is_shifted:
                assert consumer.bias is not None
                consumer.bias.copy_(consumer.bias.to(torch.float64) + weight @ shift)
            consumer.weight.copy_(weight * scale)
        site.norm.weight.copy_(site.norm.weight.to(torch.float64) / scale)
        if site.norm.bias is not None:
            site.norm.bias.copy_((site.norm.bias.to(torch.float64) - shift) / scale)
        for shortcut in site.shortcuts:
            insert_restore_(model, shortcut).compose_(scale, shift)


def _reason_to_leave(site: NormSite, shared: Mapping[int, str]) -> str | None:
    readers = [consumer.module for consumer in site.consumers]
    for module in (site.norm.module, *readers):
        for parameter in module.parameters():
            if parameter.data_ptr() in shared:
                return f"a weight stands in several places: {shared[parameter.data_ptr()]}"
    if not site.is_closed:
        return "its output is also read outside the model's known maps"
    return None


def _shared_memory(model: nn.Module) -> dict[int, str]:
    """Address of every parameter that has more than one name → the names."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter.data_ptr(), []).append(name)
    counts = Counter({address: len(found) for address, found in names.items()})
    return {a: ", ".join(names[a]) for a, count in counts.items() if count > 1}
