"""`nearest`: rounds Linear weights and embedding tables to integers, symmetrically, with one scale
per output channel or row.

    scale_o = max_i |W_oi| / (2^(bits−1) − 1),   q_oi = round(W_oi / scale_o)

No data is needed. Tensors that share memory (tied weights) are quantized once, under their first
name. Biases and norms stay float32: they are small and are used in float operations. Rules that use
data or clip are in the other modules of this package (see `rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.simulated.packing import on_grid
from attar.models.simulated.qparams import Bits, WeightQParams
from attar.models.structure.sites import quantized_weights
from attar.numerics.affine import QParams, choose_qparams, per_channel_range, quantize


@dataclass(frozen=True)
class QuantizedWeights:
    """The parameters of a model. Each is in exactly one of `integers`, `floats` and `tied`."""

    entries: tuple[WeightQParams, ...]
    integers: Mapping[str, Tensor]
    scales: Mapping[str, Tensor]
    floats: Mapping[str, Tensor]
    tied: Mapping[str, str]


MakeIntegers = Callable[[str, Tensor, QParams], tuple[Tensor, Tensor]]
"""(name, weight (O, I), its grid from the range of its values) → integers (O, I), scales (O,)."""


def nearest(name: str, weight: Tensor, grid: QParams) -> tuple[Tensor, Tensor]:
    """Round every value to the nearest grid point."""
    return quantize(weight, grid, axis=0), grid.scale


def quantize_weights(
    model: PreTrainedModel,
    bits: Bits | Callable[[str, str], int],
    make_integers: MakeIntegers = nearest,
    *,
    left_float: Collection[str] = (),
    full_range: bool = False,
) -> QuantizedWeights:
    """Compute integers and scales of every weight of `model`, without changing the model.

    Args:
        bits: bit width, or a function of a weight's name and kind.
        make_integers: the rounding rule.
        left_float: names of weights that are not quantized.
        full_range: also use the integer −2^(bits−1), as LSQ does.
    Raises:
        ModelError: a weight is NaN or infinite.
    """
    kinds = quantized_weights(model)
    state = model.state_dict()
    tied = tied_names(state)
    entries: list[WeightQParams] = []
    integers: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for name, kind in kinds.items():
        if name in tied or name in left_float:
            continue
        weight = state[name].detach().to(torch.float32)
        if isinstance(bits, Bits):
            num_bits = bits.embedding if kind == "embedding" else bits.weight
        else:
            num_bits = bits(name, kind)
        grid = weight_grid(name, weight, num_bits, full_range)
        integers[name], scales[name] = make_integers(name, weight, grid)
        entries.append(
            WeightQParams(
                fqn=name,
                kind=kind,
                bits=num_bits,
                shape=(weight.shape[0], weight.shape[1]),
                quant_min=grid.quant_min,
                quant_max=grid.quant_max,
            )
        )
    floats = {n: t for n, t in state.items() if n not in integers and n not in tied}
    return QuantizedWeights(tuple(entries), integers, scales, floats, tied)


def put_on_grid_(model: PreTrainedModel, weights: QuantizedWeights) -> None:
    """Set the parameters of `model` in place: quantized weights to their dequantized values, all
    others to the floats of `weights`.
    """
    parameters = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, value in weights.floats.items():
            parameters[name].copy_(value)
        for entry in weights.entries:
            name = entry.fqn
            parameters[name].copy_(on_grid(entry, weights.integers[name], weights.scales[name]))


def weight_grid(name: str, weight: Tensor, bits: int, full_range: bool = False) -> QParams:
    """The symmetric grid of each row that covers the range of its values.

    Raises:
        ModelError: a value is NaN or infinite.
    """
    low, high = per_channel_range(weight)
    if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
        raise ModelError(
            f"weight {name} holds NaN or infinite values and has no grid; train the model again"
        )
    return choose_qparams(low, high, bits, symmetric=True, full_range=full_range)


def tied_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of each tied tensor → first name with the same memory; first names are left out."""
    first: dict[tuple[int, torch.Size], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.numel() == 0:
            continue
        canonical = first.setdefault((tensor.data_ptr(), tensor.shape), name)
        if canonical != name:
            tied[name] = canonical
    return tied
