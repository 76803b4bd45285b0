"""`gptq`: rounds weights column by column and compensates each error in the remaining columns.

Inputs are correlated, so the rounding error of one column can be compensated by others. After
column i is rounded, the columns not yet rounded are updated to minimize the error of the layer's
output, using H = XᵀX, the second moments of the inputs on the calibration texts:

    e = (w_i − q_i) / U_ii,   w_j ← w_j − e·U_ij  for j > i,   U = cholesky(H⁻¹), upper

Columns are processed in order of decreasing H_ii: the most important are rounded while many columns
are left to compensate. Scales are those of `clipped`, weighted by the mean squares of the inputs.
Embedding tables use `clipped` and compensate each other's errors (`summed_tables`).

Source: GPTQ (Frantar et al. 2023), with its "act-order" and 1 % dampening.
*Differs from the paper*: all layers use the inputs of the float model, from one pass, instead of
inputs from previously quantized layers; scales are clipped.
Shape letters: `O` rows, `I` inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.site_kinds import StackName
from attar.numerics.affine import QParams
from attar.quantization.calibration.calibrate import Batch, right_padded
from attar.quantization.calibration.outputs import final_states
from attar.quantization.calibration.real_tokens import RealTokens, TokensAt
from attar.quantization.weights.summed_tables import TableReads
from attar.step import StepContext

DAMPENING = 0.01
"""Fraction of the mean diagonal of H that is added to the diagonal. This keeps H invertible when
there are fewer tokens than inputs."""
COLUMNS_AT_ONCE = 128
"""Number of columns whose updates of the remaining columns are applied in one matrix product."""


def gptq(weight: Tensor, grid: QParams, moment: Tensor) -> Tensor:
    """Integers that approximately minimize the error of the layer's output on inputs with these
    moments.

    Args:
        weight: (O, I).
        grid: symmetric, one scale per row.
        moment: XᵀX of the inputs, (I, I).
    Returns: int32 (O, I).
    """
    order = moment.diagonal().argsort(descending=True)
    left = weight[:, order].to(torch.float64)
    upper = _inverse_factor(moment[order][:, order].to(torch.float64))
    scale = grid.scale.to(torch.float64)
    integers = torch.empty_like(left)
    for start in range(0, left.shape[1], COLUMNS_AT_ONCE):
        block = slice(start, min(start + COLUMNS_AT_ONCE, left.shape[1]))
        columns, factor = left[:, block].clone(), upper[block, block]
        errors = torch.empty_like(columns)
        for i in range(columns.shape[1]):
            rounded = (columns[:, i] / scale).round().clamp(grid.quant_min, grid.quant_max)
            errors[:, i] = (columns[:, i] - rounded * scale) / factor[i, i]
            columns[:, i:] -= errors[:, i, None] * factor[None, i, i:]
            integers[:, start + i] = rounded
        left[:, block.stop :] -= errors @ upper[block, block.stop :]
    back = order.argsort()
    return integers[:, back].to(torch.int32)


def _inverse_factor(moment: Tensor) -> Tensor:
    """Upper Cholesky factor of the inverse of the dampened moment."""
    dampening = DAMPENING * moment.diagonal().mean().clamp(min=torch.finfo(moment.dtype).tiny)
    moment = moment + dampening * torch.eye(len(moment), dtype=moment.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    return torch.linalg.cholesky(inverse, upper=True)


def seen_inputs(
    model: PreTrainedModel, batches: Sequence[Batch], context: StepContext
) -> tuple[Mapping[str, Tensor], TableReads]:
    """Second moments XᵀX of the inputs of each Linear at real tokens, parameter name → (I, I) in
    float64, and the rows looked up in embedding tables.

    Layers that read the same tensor (queries, keys, values) each store their own copy.
    """
    real, reads = RealTokens(), TableReads()
    sides = _sides(model)
    moments: dict[str, Tensor] = {}

    def watch(fqn: str, module: nn.Linear) -> RemovableHandle:
        side, name = sides[fqn], f"{fqn}.weight"

        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            values = TokensAt(real, side, side).values_of(args[0]).to(torch.float32)
            moments[name] = moments.get(name, 0) + (values.T @ values).to(torch.float64)

        return module.register_forward_pre_hook(add)

    with ExitStack() as hooks, torch.inference_mode():
        hooks.enter_context(reads.watching(model, real))
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                hooks.callback(watch(name, module).remove)
        padded = [right_padded(batch) for batch in batches]
        for batch in real.each(padded, context, "inputs of weights"):
            final_states(model, batch)
    return moments, reads


def _sides(model: PreTrainedModel) -> Mapping[str, StackName]:
    """The stack whose tokens each Linear reads: its own, except that keys and values of a
    cross-attention read the encoder's, and a head reads the last stack's.
    """
    stacks = anatomy_of(model).stacks
    last: StackName = "decoder" if stacks[-1].name == "decoder" else "encoder"
    sides: dict[str, StackName] = dict.fromkeys((name for name, _ in model.named_modules()), last)
    for stack in stacks:
        own: StackName = "decoder" if stack.name == "decoder" else "encoder"
        for block in stack.blocks:
            sides |= dict.fromkeys((view.fqn for view in block.linears), own)
            if block.cross_attention is not None:
                cross = block.cross_attention
                sides |= dict.fromkeys((cross.k.fqn, cross.v.fqn), "encoder")
    return sides
