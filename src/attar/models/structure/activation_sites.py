"""What an activation function gives, and the one map that reads it.

    ffn   h = act(x W_upᵀ + b),  y = h W_downᵀ + b

An activation function commutes with no scale, so behind it stands a factor (`channel_factors`).

Left out: gated feed-forwards, where the rows of `up` could take the factor and no gated family is
quantized yet. Values, whose map could take scale and shift for nothing: tried and worse
(docs/decisions/0008).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attar.models.structure.anatomy import Anatomy
from attar.models.structure.views import LinearView, Shortcut


@dataclass(frozen=True)
class ActivationSite:
    """The tensor between an activation function and the map behind it."""

    name: str
    """Of the activation function's module."""
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
            if not ffn.is_gated:
                yield ActivationSite(ffn.act_fqn, ffn.down, stack.name, block.index)
