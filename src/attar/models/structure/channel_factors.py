"""The input of a feed-forward's last map, and a factor for each of its channels.

A tensor between two linear maps can be scaled per channel without changing the output, if the map
that reads it is divided by the scale.

    ffn          h = act(x W_upᵀ + b),                        y = h W_downᵀ + b
    gated ffn    h = act(x W_gateᵀ) ⊙ (x W_upᵀ + b),          y = h W_downᵀ + b
    chain        h = x W₁ᵀ + b,                                y = h W₂ᵀ + b

A gated product is linear in the output of `up`, so the factor can be folded into the rows of W_up
(and its bias) at no cost. Between an activation function and the next map there are no weights that
could be scaled, so a module does it: `ChannelFactor`, stored on the activation's module and called
by a hook, like a quantizer (`ports`). A shift is not possible.

Not included: values, whose map could absorb scale and shift at no cost: tried and worse
(docs/decisions/0008).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.structure.anatomy import Anatomy, anatomy_of
from attar.models.structure.views import ChainView, LinearView, Shortcut

ATTRIBUTE = "at_channels"


@dataclass(frozen=True)
class ActivationSite:
    """The input of a feed-forward's last map."""

    name: str
    """Name of the activation function's module; in a chain, of the second of two maps."""
    maker: LinearView | None
    """The map whose rows can absorb a factor: `up` of a gated feed-forward, or the previous map in
    a chain; None: there is none."""
    reader: LinearView
    stack: str
    block: int

    @property
    def consumers(self) -> tuple[LinearView, ...]:
        return (self.reader,)

    @property
    def shortcuts(self) -> tuple[Shortcut, ...]:
        """Empty: no sum reads it."""
        return ()

    @property
    def num_channels(self) -> int:
        return self.reader.in_features

    @property
    def can_shift(self) -> bool:
        """False: nothing before it could absorb a shift."""
        return False


def activation_sites(anatomy: Anatomy) -> Iterator[ActivationSite]:
    """Every such tensor of a model, in the order of the forward pass."""
    for stack in anatomy.stacks:
        for block in stack.blocks:
            ffn = block.ffn
            if isinstance(ffn, ChainView):
                for maker, reader in pairwise(ffn.maps):
                    yield ActivationSite(reader.fqn, maker, reader, stack.name, block.index)
                continue
            maker = None if ffn.gate is None else ffn.up
            yield ActivationSite(ffn.act_fqn, maker, ffn.down, stack.name, block.index)


class ChannelFactor(nn.Module):
    """x ⊙ factor, (D,) and a buffer."""

    factor: Tensor

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _through_factor(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return module.at_channels(output)  # pyright: ignore[reportCallIssue]


def insert_factor_(model: PreTrainedModel, site: ActivationSite) -> ChannelFactor:
    """The factor after the activation of `site`; if there is none, insert one that has no effect
    yet.
    """
    activation = model.get_submodule(site.name)
    found = getattr(activation, ATTRIBUTE, None)
    if found is None:
        found = ChannelFactor(torch.ones_like(site.reader.weight[0]))
        activation.add_module(ATTRIBUTE, found)
        activation.register_forward_hook(_through_factor)
    return found


def factored_activations(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the activations with a factor per channel."""
    return tuple(name for name, module in model.named_modules() if hasattr(module, ATTRIBUTE))


def insert_factors_(model: PreTrainedModel, activations: Collection[str]) -> None:
    """Insert a factor after each of these activations, to be loaded.

    Raises:
        ModelError: the model has no such activation.
    """
    if not activations:
        return
    sites = activation_sites(anatomy_of(model))
    known = {site.name: site for site in sites if site.maker is None}
    strange = [name for name in activations if name not in known]
    if strange:
        raise ModelError(
            f"{len(strange)} of {len(activations)} activations whose channels are to be scaled "
            f"are none of {type(model).__name__}'s, first {strange[0]!r}"
        )
    for name in activations:
        insert_factor_(model, known[name])
