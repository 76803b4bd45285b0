"""What a feed-forward's last map reads, as a place where channels can be scaled.

    ffn          h = act(x W_upᵀ + b),                        y = h W_downᵀ + b
    gated ffn    h = act(x W_gateᵀ) ⊙ (x W_upᵀ + b),          y = h W_downᵀ + b

A gated product is linear in what `up` gives, so the rows of W_up (and its bias) take a factor for
nothing. An activation function commutes with no scale: without a gate the factor stands behind it
(`channel_factors`). Nothing before h could take a shift.

Left out: values, whose map could take scale and shift for nothing: tried and worse
(docs/decisions/0008).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attar.models.structure.anatomy import Anatomy
from attar.models.structure.views import LinearView, Shortcut


@dataclass(frozen=True)
class ActivationSite:
    """The tensor that a feed-forward's last map reads."""

    name: str
    """Of the activation function's module."""
    maker: LinearView | None
    """The map whose rows can take a factor: `up` of a gated feed-forward; None: no map can."""
    reader: LinearView
    stack: str
    block: int

    @property
    def consumers(self) -> tuple[LinearView, ...]:
        return (self.reader,)

    @property
    def shortcuts(self) -> tuple[Shortcut, ...]:
        """None: no sum reads it."""
        return ()

    @property
    def num_channels(self) -> int:
        return self.reader.in_features

    @property
    def can_shift(self) -> bool:
        """Nothing before it could take a shift."""
        return False


def activation_sites(anatomy: Anatomy) -> Iterator[ActivationSite]:
    """Every such tensor of a model, in the order of the forward pass."""
    for stack in anatomy.stacks:
        for block in stack.blocks:
            ffn = block.ffn
            maker = ffn.up if ffn.is_gated else None
            yield ActivationSite(ffn.act_fqn, maker, ffn.down, stack.name, block.index)
