"""Moves the scales and shifts on residual connections of a migrated model, to reduce latency.

A transform leaves y = s ⊙ x̂ + z on the residual connection around a sublayer (`Restore`). A runtime
executes this as one or two more passes over the tensor, twelve times in six blocks. To avoid this,
z, and s if the runtime can fuse it, are folded into constants. With the last linear layer W a + b
of the sublayer, to whose output the residual is added:

    both          z goes into the bias:   W a + (b + z) + s ⊙ x̂
    OpenVINO      = s ⊙ ((W / s) a + (b + z) / s + x̂)    the factor after the sum is fused into the
                  kernel; W / s only changes the scale of each row of integers
    ONNX Runtime  s stays a factor on the residual, one Mul, which takes at most 2 % of the time
                  (benchmarks/results/migration-latency). As the per-channel scale of a
                  DequantizeLinear it would not be fused and would take 15 %

Both are exact up to float32 rounding. Left out: sublayers whose adder does not have exactly one
Linear, and factors of 0, which have no inverse. Their Restore is kept, which is correct but slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.channel_factors import ChannelFactor
from attar.models.structure.shortcuts import ATTRIBUTE, Restore, restore_of

Integers = dict[str, tuple[Tensor, Tensor]]
"""Parameter name → (integers (O, I), scales (O,))."""


@dataclass(frozen=True)
class MovedShortcut:
    """A Restore whose constants can be moved."""

    restore: Restore
    owner: nn.Module
    """The module that holds the Restore and adds the residual."""
    linear: str
    """Name of the linear layer to whose output the residual is added."""
    norm: nn.Module
    """The norm that reads the sum."""


def moved_shortcuts(model: PreTrainedModel) -> Iterator[MovedShortcut]:
    """Every Restore whose adder holds exactly one Linear, with a bias."""
    if not any(isinstance(module, Restore) for module in model.modules()):
        return
    for site in anatomy_of(model).norm_sites:
        for shortcut in site.shortcuts:
            restore = restore_of(model, shortcut)
            if restore is None or shortcut.adder is None:
                continue
            owner = model.get_submodule(shortcut.adder)
            names = [name for name, child in owner.named_children() if isinstance(child, nn.Linear)]
            if len(names) == 1 and owner.get_submodule(names[0]).bias is not None:
                linear = f"{shortcut.adder}.{names[0]}"
                yield MovedShortcut(restore, owner, linear, shortcut.norm.module)


def factor_behind_sum_(model: PreTrainedModel, integers: Integers) -> None:
    """The OpenVINO variant. Changes `integers` and biases; call before weights are replaced."""
    for moved in list(moved_shortcuts(model)):
        scale, shift = moved.restore.scale, moved.restore.shift
        if not bool((scale != 0).all()):
            continue
        linear: Any = model.get_submodule(moved.linear)
        name = f"{moved.linear}.weight"
        with torch.no_grad():
            linear.bias.copy_((linear.bias + shift) / scale)
            if name in integers:  # weight scales are positive, so the sign goes into the integers
                values, scales = integers[name]
                signs = scale.sign().to(values.dtype)
                integers[name] = values * signs[:, None], scales / scale.abs()
            else:
                linear.weight.div_(scale[:, None])
        setattr(moved.owner, ATTRIBUTE, nn.Identity())
        factor = ChannelFactor(scale)
        moved.norm.add_module("behind_sum", factor)
        moved.norm.register_forward_pre_hook(_through_factor)


def _through_factor(norm: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (norm.behind_sum(args[0]), *args[1:])  # pyright: ignore[reportCallIssue]


def shift_in_bias_(model: PreTrainedModel, integers: Integers) -> None:
    """The ONNX Runtime variant. Call before weights are replaced."""
    for moved in list(moved_shortcuts(model)):
        linear: Any = model.get_submodule(moved.linear)
        with torch.no_grad():
            linear.bias.copy_(linear.bias + moved.restore.shift)
        setattr(moved.owner, ATTRIBUTE, ChannelFactor(moved.restore.scale))
