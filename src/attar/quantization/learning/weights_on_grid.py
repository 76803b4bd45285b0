"""Linear layers and embeddings whose weights learn on their grids.

The module computes with the fake-quantized weight; the parameter keeps its name and its value, and
the gradient reaches it straight through. A module's class is changed in place, so hooks, names and
tied parameters are as they were. An embedding quantizes only the rows it looks up: a row has its
own step, so that is the same, and the table is tens of times larger than a batch.

    LSQ        the step of each row learns, gradient divided by √(values in a row · quant_max)
    min-max    the step of each row is max|w| / quant_max of the row as it is now (with PACT)

*Quant-Noise*: in each training pass only a random share of a weight's values is on the grid, so
that the gradient of the others has no straight-through error; for validation and in what is stored
all of them are.

Left out: DoReFa's tanh, which would change the weights of a model that is already trained.
Shape letters: `O` rows (output channels, or words of a table), `I` values a row.
"""

from __future__ import annotations

from collections.abc import Callable
from types import new_class

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.simulated.qparams import WeightQParams
from attar.numerics.affine import SMALLEST_SCALE, QParams, quantize
from attar.quantization.learning.quantizers import (
    learned_fake_quantize,
    lsq_gradient_scale,
    positive,
)
from attar.quantization.weights.nearest import QuantizedWeights


class WeightGrid(nn.Module):
    """The symmetric grids of one weight, one a row."""

    def __init__(self, entry: WeightQParams) -> None:
        super().__init__()
        self.quant_min, self.quant_max = entry.quant_min, entry.quant_max
        self.noise = 1.0
        """Share of the values that a training pass puts on the grid."""

    def steps(self, rows_OI: Tensor, index: Tensor | None) -> Tensor:
        """The step of each row, shape (…, 1): of the whole weight, or of the rows looked up."""
        raise NotImplementedError

    def forward(self, rows_OI: Tensor, index: Tensor | None = None) -> Tensor:
        """Rows on their grids.

        Args:
            rows_OI: the whole weight (O, I), or rows of it, shape (…, I).
            index: which rows, shape (…); None: the whole weight.
        """
        steps = self.steps(rows_OI, index)
        damping = lsq_gradient_scale(rows_OI.shape[-1], self.quant_max)
        zero = torch.zeros((), device=steps.device)
        ends = self.quant_min, self.quant_max
        on_grid = learned_fake_quantize(rows_OI, steps, zero, *ends, damping)
        if self.noise == 1 or not self.training:
            return on_grid
        return torch.where(torch.rand_like(rows_OI) < self.noise, on_grid, rows_OI)


class LearnedSteps(WeightGrid):
    """LSQ: a step a row, learned."""

    def __init__(self, entry: WeightQParams, scales_O: Tensor) -> None:
        super().__init__(entry)
        self.step = nn.Parameter(scales_O.detach().clone().to(torch.float32))

    def steps(self, rows_OI: Tensor, index: Tensor | None) -> Tensor:
        step = self.step if index is None else self.step[index]
        return positive(step).unsqueeze(-1)


class MinmaxSteps(WeightGrid):
    """A step a row that always reaches the row's largest value; nothing is learned."""

    def __init__(self, entry: WeightQParams, scales_O: Tensor) -> None:
        super().__init__(entry)

    def steps(self, rows_OI: Tensor, index: Tensor | None) -> Tensor:
        largest = rows_OI.detach().abs().amax(dim=-1, keepdim=True)
        steps = largest / self.quant_max
        return torch.where(steps < SMALLEST_SCALE, 1.0, steps)


MakeWeightGrid = Callable[[WeightQParams, Tensor], WeightGrid]
"""(a weight's entry, the steps it starts from) → its grids."""


class LinearOnGrid(nn.Linear):
    """A Linear layer that computes with its weight on `weight_grid`."""

    weight_grid: WeightGrid

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight_grid(self.weight), self.bias)


class EmbeddingOnGrid(nn.Embedding):
    """An embedding whose looked-up rows are on `weight_grid`."""

    weight_grid: WeightGrid

    def forward(self, input: Tensor) -> Tensor:
        return self.weight_grid(super().forward(input), input)


def put_weights_on_learned_grids_(
    model: PreTrainedModel, start: QuantizedWeights, make_grid: MakeWeightGrid, noise: float = 1.0
) -> dict[str, WeightGrid]:
    """Make every quantized weight of `model` learn on the grid that `start` gave it.

    Args:
        noise: share of a weight's values that a training pass puts on it.

    Returns: weight name → its grids, which are part of the model.
    """
    grids = {entry.fqn: make_grid(entry, start.scales[entry.fqn]) for entry in start.entries}
    shared = {name: grids[first] for name, first in start.tied.items() if first in grids}
    for name, grid in {**grids, **shared}.items():
        module = model.get_submodule(name.removesuffix(".weight"))
        module.__class__ = _class_on_grid(module)
        module.weight_grid, grid.noise = grid, noise
    return grids


def _class_on_grid(module: nn.Module) -> type[nn.Module]:
    """The class that does what the module's class does, with the weight on its grid."""
    own = type(module)
    if own is nn.Linear:
        return LinearOnGrid
    if own is nn.Embedding:
        return EmbeddingOnGrid
    if isinstance(module, nn.Embedding):
        # BART scales what it looks up and shifts positions: its own `forward` runs first, and its
        # call of nn.Embedding's arrives at ours
        return new_class(f"{own.__name__}OnGrid", (own, EmbeddingOnGrid))
    raise ModelError(
        f"the weight of a {own.__name__} cannot be trained on a grid; supported: Linear and "
        "Embedding; add it in src/attar/quantization/learning/weights_on_grid.py"
    )


@torch.no_grad()
def stored_weights(
    model: PreTrainedModel, grids: dict[str, WeightGrid], start: QuantizedWeights
) -> QuantizedWeights:
    """What was learned, in the form it is stored: integers and steps, and the floats that stay."""
    state = model.state_dict()
    integers: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for entry in start.entries:
        weight = state[entry.fqn].to(torch.float32)
        scale = grids[entry.fqn].steps(weight, None)[:, 0]
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        grid = QParams(scale, zero_point, entry.quant_min, entry.quant_max)
        integers[entry.fqn], scales[entry.fqn] = quantize(weight, grid, axis=0), scale
    floats = {name: state[name].clone() for name in start.floats}
    return QuantizedWeights(start.entries, integers, scales, floats, start.tied)
