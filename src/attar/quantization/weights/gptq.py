"""`gptq`: weights rounded one input at a time, each error made good by the inputs still to come.

Inputs are correlated, so rounding errors of one add up with those of its likes. Column i is
rounded, and the columns not yet rounded take up what it cost at the layer's output, which is read
off H = XᵀX, the inputs' second moments on the calibration texts:

    e = (w_i − q_i) / U_ii,   w_j ← w_j − e·U_ij  for j > i,   U = cholesky(H⁻¹), upper

Columns go in order of falling H_ii: the loudest are rounded while there are many to help. Scales
are those of `clipped`, weighted with the inputs' mean squares. Embedding tables are clipped, and
make each other's errors good (`summed_tables`).

Source: GPTQ (Frantar et al. 2023), with its "act-order" and 1 % dampening.
*Differs from the paper*: all layers read the float model's inputs, in one pass, instead of those of
the layers quantized before them; scales are clipped.
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
from attar.quantization.weights.clipped import clipped, clipped_scale
from attar.quantization.weights.rounder import Rounder
from attar.quantization.weights.summed_tables import TableReads
from attar.step import StepContext

DAMPENING = 0.01
"""Of the mean diagonal, added to it: keeps H invertible when tokens are fewer than inputs."""
COLUMNS_AT_ONCE = 128
"""Columns whose effect on the rest is applied in one product."""


def gptq_rule(model: PreTrainedModel, batches: Sequence[Batch], context: StepContext) -> Rounder:
    """Watch what every Linear reads in one pass of the float `model`, then round by it."""
    moments, reads = seen_inputs(model, batches, context)

    def make_integers(name: str, weight: Tensor, grid: QParams) -> tuple[Tensor, Tensor]:
        moment = moments.get(name)
        if moment is None:
            return clipped(name, weight, grid)
        context.stop_if_asked("rounding weights")
        scale = clipped_scale(weight, grid, moment.diagonal().to(torch.float32))
        chosen = QParams(scale, grid.zero_point, grid.quant_min, grid.quant_max)
        return gptq(weight, chosen, moment), scale

    return Rounder(make_integers, reads)


def gptq(weight: Tensor, grid: QParams, moment: Tensor) -> Tensor:
    """The integers whose layer output is near that of `weight`, on inputs with these moments.

    Args:
        weight: (O, I).
        grid: symmetric, one scale per row.
        moment: (I, I), XᵀX of the inputs.
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
    """Upper Cholesky factor of the dampened moment's inverse."""
    dampening = DAMPENING * moment.diagonal().mean().clamp(min=torch.finfo(moment.dtype).tiny)
    moment = moment + dampening * torch.eye(len(moment), dtype=moment.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    return torch.linalg.cholesky(inverse, upper=True)


def seen_inputs(
    model: PreTrainedModel, batches: Sequence[Batch], context: StepContext
) -> tuple[Mapping[str, Tensor], TableReads]:
    """XᵀX of the real tokens that each Linear reads, parameter name → (I, I), float64, and the
    rows that they read of embedding tables.

    Layers that read the same tensor (queries, keys, values) each keep their own sum.
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
        with context.progress.task("inputs of weights", len(batches)) as task:
            for batch in map(right_padded, batches):
                context.stop_if_asked("calibration")
                real.read(batch)
                final_states(model, batch)
                task.advance()
    return moments, reads


def _sides(model: PreTrainedModel) -> Mapping[str, StackName]:
    """Whose tokens each Linear reads: those of its own stack, but for the keys and values of a
    cross-attention, which read the encoder's; a head reads the last stack's.
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
