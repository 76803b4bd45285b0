"""Convert GPT-2's Conv1D to an equivalent Linear.

A Conv1D computes x W + b with W stored as (I, O). Integers, scales and learned grids are defined
along the rows of (O, I), so a model's Conv1D layers are replaced before it is quantized. Names do
not change, and a third of a fused map remains a third, of the rows.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def use_linears_(model: PreTrainedModel) -> None:
    """Replace every Conv1D of `model` by a Linear with the same weights, transposed."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            linear = nn.Linear(module.nx, module.nf, device="meta")
            linear.weight = nn.Parameter(module.weight.detach().t().contiguous())
            linear.bias = module.bias
            model.set_submodule(name, linear.train(module.training))
