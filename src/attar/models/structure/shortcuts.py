"""A shortcut that restores what was moved out of a norm.

A post-LN block adds a norm's output y to the output of its sublayer. After an equivalent transform,
the norm outputs X' = (y − z) / s instead, so the shortcut, and only it, must be restored:

    y = s ⊙ X' + z

A `Restore` module in the shortcut does this; it is saved with the weights. Its position depends on
what computes the sum:

    a module receives the shortcut as its second argument (BERT): Restore changes the argument
    the block itself computes the sum (BART): no hook can access the shortcut alone, but the
        sublayer's first map reads the same tensor. It is stored there, after any dropout, and
        (s − 1)⊙X' + z is added to the sum that enters the norm

Pre-LN blocks need nothing, because their shortcut bypasses the norm. In training, dropout between
norm and readers applies to X' and therefore not to z.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.views import Shortcut

ATTRIBUTE = "at_shortcut"


class Restore(nn.Module):
    """y = scale ⊙ x + shift, both buffers of shape (D,); initially the identity."""

    scale: Tensor
    shift: Tensor

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(hidden_size))
        self.register_buffer("shift", torch.zeros(hidden_size))
        self._remembered: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift

    def compose_(self, scale: Tensor, shift: Tensor) -> None:
        """Also restore one more transform, applied after those restored so far: s₁ ⊙ (s₂ ⊙ x + z₂)
        + z₁.
        """
        self.shift.copy_(self.scale * shift + self.shift)
        self.scale.mul_(scale)

    def remember(self, reader: nn.Module, args: tuple[Any, ...]) -> None:
        """Hook of the first map that reads the shortcut's tensor."""
        self._remembered = args[0]

    def complete(self, norm: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Hook of the norm that reads the sum: add the missing part, and release x."""
        x, self._remembered = self._remembered, None
        if x is None:
            raise ModelError(
                "a restored shortcut met its norm before the map that reads it; the model's "
                "blocks run in another order than src/attar/models/structure/families.py says"
            )
        return (args[0] + (x * (self.scale - 1) + self.shift), *args[1:])

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles drop the stored batch, which a failed pass may have left behind."""
        return {**self.__dict__, "_remembered": None}


def _through_second_argument(adder: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0], adder.at_shortcut(args[1]), *args[2:])  # pyright: ignore[reportCallIssue]


def restore_of(model: PreTrainedModel, shortcut: Shortcut) -> Restore | None:
    """The module in a shortcut; None if there is none."""
    return getattr(model.get_submodule(shortcut.owner), ATTRIBUTE, None)


def insert_restore_(model: PreTrainedModel, shortcut: Shortcut) -> Restore:
    """The module in a shortcut; if there is none, insert one that has no effect yet."""
    found = restore_of(model, shortcut)
    if found is not None:
        return found
    weight = shortcut.norm.weight
    restore = Restore(weight.numel()).to(device=weight.device, dtype=weight.dtype)
    owner = model.get_submodule(shortcut.owner)
    owner.add_module(ATTRIBUTE, restore)
    # before hooks of quantizers: the shortcut's tensor is the block's own, not the output of a
    # quantizer at a map's input
    if shortcut.adder is None:
        shortcut.reader.module.register_forward_pre_hook(restore.remember, prepend=True)
        owner.register_forward_pre_hook(restore.complete, prepend=True)
    else:
        owner.register_forward_pre_hook(_through_second_argument, prepend=True)
    return restore


def restored_norms(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the norms whose output is restored in a shortcut of `model`."""
    if not any(isinstance(module, Restore) for module in model.modules()):
        return ()
    return tuple(
        site.norm.fqn
        for site in anatomy_of(model).norm_sites
        if any(restore_of(model, shortcut) is not None for shortcut in site.shortcuts)
    )


def insert_restores_(model: PreTrainedModel, norms: Collection[str]) -> None:
    """Insert a `Restore` into every shortcut of these norms, to be loaded.

    Raises:
        ModelError: the model has no such norm, or the norm has no shortcut.
    """
    if not norms:
        return
    shortcuts = {site.norm.fqn: site.shortcuts for site in anatomy_of(model).norm_sites}
    strange = [norm for norm in norms if not shortcuts.get(norm)]
    if strange:
        raise ModelError(
            f"{len(strange)} of {len(norms)} norms whose shortcut is to be restored have none in "
            f"{type(model).__name__}, first {strange[0]!r}"
        )
    for norm in norms:
        for shortcut in shortcuts[norm]:
            insert_restore_(model, shortcut)
