"""Size of a tensor on disk, in the format of `models/simulated/packing`.

    weight (O, I) at w bits     O · ⌈I·w/8⌉ bytes of integers and 4·O bytes of scales
    weight left float           4·O·I bytes
    everything else             4 bytes per value (biases, norms)

Activations are not stored, so their width does not count. Left out: the header of the file and
`qparams.json`, about a hundred bytes per tensor at any width.
Shape letters: O rows, I columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from attar.artifacts import MIB
from attar.models.structure.sites import quantized_weights
from attar.quantization.method import BitPlan
from attar.quantization.weights.nearest import tied_names

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Weight:
    """One quantized parameter; tied parameters count once."""

    fqn: str
    kind: str
    """"embedding" or "linear"."""
    shape: tuple[int, int]

    @property
    def numel(self) -> int:
        return self.shape[0] * self.shape[1]


def weights_of(model: nn.Module) -> list[Weight]:
    """Every weight to quantize, in module order; shared memory counts once."""
    state = model.state_dict()
    tied = tied_names(state)
    return [
        Weight(name, kind, (state[name].shape[0], state[name].shape[1]))
        for name, kind in quantized_weights(model).items()
        if name not in tied
    ]


def weight_bytes(weight: Weight, bits: int | None) -> int:
    """Bytes of one weight with its scales; None: left float.

    Example:
        >>> small = Weight("w", "linear", (10, 3))
        >>> weight_bytes(small, 5), weight_bytes(small, 8), weight_bytes(small, None)
        (60, 70, 120)
    """
    rows, columns = weight.shape
    if bits is None:
        return FLOAT_BYTES * weight.numel
    return rows * (-(-columns * bits // 8) + FLOAT_BYTES)


def planned_mib(model: nn.Module, plan: BitPlan) -> float:
    """Size of all tensors of `model` under `plan`, in MiB."""
    weights = weights_of(model)
    parameters = {id(p): p.numel() for p in model.state_dict(keep_vars=True).values()}
    floats = sum(parameters.values()) - sum(weight.numel for weight in weights)
    total = FLOAT_BYTES * floats + sum(
        weight_bytes(weight, bits_in(plan, weight)) for weight in weights
    )
    return total / MIB


def bits_in(plan: BitPlan, weight: Weight) -> int | None:
    """Bits of a weight in a plan; None: left float."""
    return None if weight.fqn in plan.float_tensors else plan.weight(weight.fqn, weight.kind)


def average_bits(plan: BitPlan, weights: list[Weight]) -> float:
    """Mean bits per value of these weights; a float counts as 32. Scales are not included, as is
    usual in the literature; `planned_mib` includes them."""
    bits: Mapping[str, int | None] = {weight.fqn: bits_in(plan, weight) for weight in weights}
    total = sum((bits[weight.fqn] or 32) * weight.numel for weight in weights)
    return total / sum(weight.numel for weight in weights)
