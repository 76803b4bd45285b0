"""Embedding tables and Linear weights to integers: symmetric, one scale a row or output channel.

    scale_o = max_i |W_oi| / (2^(bits−1) − 1),   q_oi = round(W_oi / scale_o)

No data is needed. Tensors that share memory (tied weights) are quantized once, under the name that
comes first; biases and norms stay float32, since they are few and enter sums that are float anyway.
Left out: weights rounded by a search (AdaRound, GPTQ); clipped weight ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.simulated.qparams import Bits, WeightQParams
from attar.models.structure.sites import quantized_weights
from attar.numerics.affine import QParams, choose_qparams, dequantize, quantize
from attar.numerics.agreement import sqnr_db
from attar.numerics.granularity import per_channel_range


@dataclass(frozen=True)
class QuantizedWeights:
    """A model's parameters, each in exactly one of `integers`, `floats` and `tied`."""

    entries: tuple[WeightQParams, ...]
    integers: Mapping[str, Tensor]
    scales: Mapping[str, Tensor]
    floats: Mapping[str, Tensor]
    tied: Mapping[str, str]
    sqnr_db: Mapping[str, float]


def quantize_weights(model: PreTrainedModel, bits: Bits) -> QuantizedWeights:
    """The integers and scales of every weight of `model`, which stays as it is.

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    kinds = quantized_weights(model)
    state = model.state_dict()
    tied = _tied_names(state)
    entries: list[WeightQParams] = []
    integers: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    sqnr: dict[str, float] = {}
    for name, kind in kinds.items():
        if name in tied:
            continue
        weight = state[name].detach().to(torch.float32)
        num_bits = bits.embedding if kind == "embedding" else bits.weight
        grid = _weight_grid(name, weight, num_bits)
        integers[name], scales[name] = quantize(weight, grid, axis=0), grid.scale
        sqnr[name] = sqnr_db(weight, dequantize(integers[name], grid, axis=0))
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
    return QuantizedWeights(tuple(entries), integers, scales, floats, tied, sqnr)


def put_on_grid_(model: PreTrainedModel, weights: QuantizedWeights) -> None:
    """Replace every quantized weight of `model` by what its integers stand for."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for entry in weights.entries:
            scale = weights.scales[entry.fqn]
            zero_point = torch.zeros_like(scale, dtype=torch.int32)
            grid = QParams(scale, zero_point, entry.quant_min, entry.quant_max)
            parameters[entry.fqn].copy_(dequantize(weights.integers[entry.fqn], grid, entry.axis))


def _weight_grid(name: str, weight: Tensor, bits: int) -> QParams:
    low, high = per_channel_range(weight)
    if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
        raise ModelError(
            f"weight {name} holds NaN or infinite values and has no grid; train the model again"
        )
    return choose_qparams(low, high, bits, symmetric=True)


def _tied_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name → the first name of the same memory, for every tensor that is not the first."""
    first: dict[tuple[int, torch.Size], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.numel() == 0:
            continue
        canonical = first.setdefault((tensor.data_ptr(), tensor.shape), name)
        if canonical != name:
            tied[name] = canonical
    return tied
