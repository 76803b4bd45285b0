"""Equivalent transforms: make a tensor easier to quantize without changing the model's outputs.

Each channel of a tensor gets a scale s and a shift z, which are undone in the layers that read it.
A norm ends with an affine map and its readers start with a linear one, so both can be folded into
existing parameters at no cost:

    norm        y = γ ⊙ x̂ + β     becomes   X' = (y − z) / s:   γ' = γ / s,  β' = (β − z) / s
    reader      y Wᵀ + b           becomes   X' W'ᵀ + b':        W' = W diag(s),  b' = b + W z
    shortcut    y                  becomes   s ⊙ X' + z          (`Restore`)

The same for the input of the last linear layer of a feed-forward (`channel_factors`):

    activation  h                  becomes   h ⊙ (1/s), z = 0   (`ChannelFactor`)
    gated       act(g) ⊙ u         becomes   act(g) ⊙ u', u' = u / s:  rows of W_up / s, b_up / s

Methods differ only in how they choose (s, z). Several transforms of the same tensor compose.
Everything is computed in float64 and rounded to the parameter's dtype once.

A tensor is not transformed if one of its readers is unknown, or if a weight of its producer or of a
reader is also used elsewhere (tied to an embedding, or shared), because scaling that weight would
change the outputs. z is 0 if the producer or a reader has no bias to fold it into.

Left out: queries and keys, whose product is not followed by a weight; and values, where transforms
made results worse (docs/decisions/0008).
Source: Outlier Suppression (Wei et al. 2022), equations 5, 10 and 11; the shift from Outlier
Suppression+ (Wei et al. 2023), section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.structure.anatomy import Anatomy
from attar.models.structure.channel_factors import (
    ActivationSite,
    activation_sites,
    insert_factor_,
)
from attar.models.structure.shortcuts import insert_restore_
from attar.models.structure.views import LinearView, NormSite


@dataclass(frozen=True)
class EquivalentTransform:
    """X' = (y − shift) / scale per channel. Both are (D,) in float64; scales are nonzero."""

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
        """A transform with zero shift."""
        return cls(scale, torch.zeros_like(scale))

    def forward(self, y: Tensor) -> Tensor:
        """The transformed tensor that the readers get instead of `y`, (…, D)."""
        return (y - self.shift.to(y.dtype)) / self.scale.to(y.dtype)

    def inverse(self, x: Tensor) -> Tensor:
        """Undo the transform, as a residual connection does."""
        return x * self.scale.to(x.dtype) + self.shift.to(x.dtype)


TransformSite = NormSite | ActivationSite
"""Place of a transform: a tensor, the module that produces it, and all modules that read it."""


def transform_sites(anatomy: Anatomy) -> Iterator[TransformSite]:
    """All tensors of a model that can be transformed: outputs of norms and of activations."""
    yield from anatomy.norm_sites
    yield from activation_sites(anatomy)


def reasons_to_leave(model: PreTrainedModel, sites: Iterable[TransformSite]) -> Mapping[str, str]:
    """Name of each site that cannot be transformed → reason."""
    shared = _shared_in(model)
    reasons = {site.name: _reason_to_leave(site, shared) for site in sites}
    return {name: reason for name, reason in reasons.items() if reason}


def apply_(model: PreTrainedModel, site: TransformSite, transform: EquivalentTransform) -> None:
    """Fold `transform` into `model` at `site`, which belongs to it.

    Raises:
        ModelError: the site cannot be transformed, or cannot be shifted.
        ValueError: the numbers of channels of the transform and the tensor differ.
    """
    scale, shift = transform.scale, transform.shift
    if scale.numel() != site.num_channels:
        raise ValueError(
            f"{site.name} has {site.num_channels} channels, the transform {scale.numel()}"
        )
    reason = _reason_to_leave(site, _shared_in(model))
    if reason:
        raise ModelError(f"no transform can be moved across {site.name}: {reason}")
    is_shifted = bool((shift != 0).any())
    if is_shifted and not site.can_shift:
        raise ModelError(
            f"a shift cannot be moved across {site.name}: it or one of its readers has no bias"
        )
    with torch.no_grad():
        for consumer in site.consumers:
            weight = consumer.weight.to(torch.float64)
            if is_shifted:
                assert consumer.bias is not None
                consumer.bias.copy_(consumer.bias.to(torch.float64) + weight @ shift)
            consumer.weight.copy_(weight * scale)
        if isinstance(site, NormSite):
            site.norm.set_weight_(site.norm.weight.to(torch.float64) / scale)
            if site.norm.bias is not None:
                site.norm.bias.copy_((site.norm.bias.to(torch.float64) - shift) / scale)
        elif site.maker is not None:
            _scale_rows_(site.maker, 1 / scale)
        else:
            insert_factor_(model, site).factor.div_(scale)
        for shortcut in site.shortcuts:
            insert_restore_(model, shortcut).compose_(scale, shift)


def _scale_rows_(view: LinearView, factor: Tensor) -> None:
    view.weight.copy_(view.weight.to(torch.float64) * factor[:, None])
    if view.bias is not None:
        view.bias.copy_(view.bias.to(torch.float64) * factor)


def _reason_to_leave(site: TransformSite, shared: _Shared) -> str | None:
    maker = site.norm if isinstance(site, NormSite) else site.maker
    makers = () if maker is None else (maker.module,)
    for module in (*makers, *(consumer.module for consumer in site.consumers)):
        for parameter in module.parameters():
            if parameter.data_ptr() in shared.parameters:
                names = shared.parameters[parameter.data_ptr()]
                return f"a weight is shared: {names}"
    if not isinstance(site, NormSite):
        if maker is not None:
            return None
        is_shared = site.name in shared.modules
        return "its activation function is shared" if is_shared else None
    if not site.is_closed:
        return "its output is also read by other modules"
    return None


@dataclass(frozen=True)
class _Shared:
    """Parameters and modules that occur in several places of a model."""

    parameters: Mapping[int, str]
    """Address → names of the parameters there."""
    modules: frozenset[str]
    """Names of modules that have more than one name."""


def _shared_in(model: nn.Module) -> _Shared:
    parameters: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameters.setdefault(parameter.data_ptr(), []).append(name)
    modules: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        modules.setdefault(id(module), []).append(name)
    return _Shared(
        {a: ", ".join(names) for a, names in parameters.items() if len(names) > 1},
        frozenset(n for names in modules.values() if len(names) > 1 for n in names),
    )
