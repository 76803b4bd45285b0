"""A migrated model's shortcuts, at as little time as each runtime allows.

The problem: a transform leaves y = s ⊙ x̂ + z on the shortcut around a sublayer (Restore), and a
runtime executes that as one or two passes more over the tensor, twelve times in six blocks. The
idea: z, and s where the runtime takes it along, belong to constants that are there anyway. With the
sublayer's last map W a + b, whose output the shortcut is added to:

    both          z goes into the bias:   W a + (b + z) + s ⊙ x̂
    OpenVINO      = s ⊙ ((W / s) a + (b + z) / s + x̂)    a factor after the sum, which its kernel
                  takes along; W / s is another scale for each row of integers
    ONNX Runtime  s stays a factor on the shortcut, one Mul, which takes 2 % of the time at most
                  (benchmarks/results/migration-latency). As the scale a channel of a
                  DequantizeLinear it would be no kernel and 15 %: that one goes value by value

Both are exact up to float32's rounding. Left out: adders without exactly one Linear, and factors of
0, which have no inverse: their Restore stays as it is, right and a kernel slower.
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
    """A Restore whose constants have other places to be."""

    restore: Restore
    owner: nn.Module
    """Holds the Restore, and adds."""
    linear: str
    """Name of the map whose output the shortcut is added to."""
    norm: nn.Module
    """Reads the sum."""


def moved_shortcuts(model: PreTrainedModel) -> Iterator[MovedShortcut]:
    """Every restored shortcut whose adder holds exactly one Linear, with a bias."""
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
    """OpenVINO's way. Changes `integers` and biases; to be called before weights are replaced."""
    for moved in list(moved_shortcuts(model)):
        scale, shift = moved.restore.scale, moved.restore.shift
        if not bool((scale != 0).all()):
            continue
        linear: Any = model.get_submodule(moved.linear)
        name = f"{moved.linear}.weight"
        with torch.no_grad():
            linear.bias.copy_((linear.bias + shift) / scale)
            if name in integers:  # scales of weights are positive: a sign goes into the integers
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
    """ONNX Runtime's way. Called before weights are replaced."""
    for moved in list(moved_shortcuts(model)):
        linear: Any = model.get_submodule(moved.linear)
        with torch.no_grad():
            linear.bias.copy_(linear.bias + moved.restore.shift)
        setattr(moved.owner, ATTRIBUTE, ChannelFactor(moved.restore.scale))
