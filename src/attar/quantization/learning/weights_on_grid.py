"""Linear layers and embeddings that train with fake-quantized weights.

The module computes with the fake-quantized weight. The parameter keeps its name and float value,
and receives the gradient by the straight-through estimator. The class of the module is replaced in
place, so hooks, names and tied parameters are preserved. An embedding quantizes only the rows that
are looked up: each row has its own step, so the result is the same, and a table has tens of times
more rows than a batch has tokens.

    LSQ        a learned step per row, gradient divided by √(values in a row · quant_max)
    min-max    the step of each row is its current max|w| / quant_max (with PACT)

*Quant-Noise*: in each training pass only a random share of a weight's values is quantized, so that
the gradient of the others has no straight-through error. For validation and in the stored model all
values are quantized.

Left out: DoReFa's tanh, which would change the weights of a model that is already trained.
Shape letters: `O` rows (output channels, or tokens of a table), `I` values per row.
"""

from __future__ import annotations

from collections.abc import Callable
from types import new_class

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.simulated.packing import grid_of
from attar.models.simulated.qparams import WeightQParams
from attar.numerics.affine import SMALLEST_SCALE, quantize
from attar.quantization.learning.quantizers import (
    learned_fake_quantize,
    lsq_gradient_scale,
    positive,
)
from attar.quantization.weights.nearest import QuantizedWeights


class WeightGrid(nn.Module):
    """Symmetric per-row grids of one weight."""

    def __init__(self, entry: WeightQParams) -> None:
        super().__init__()
        self.quant_min, self.quant_max = entry.quant_min, entry.quant_max
        self.noise = 1.0
        """Share of the values that is quantized in a training pass."""

    def steps(self, rows_OI: Tensor, index: Tensor | None) -> Tensor:
        """Steps, shape (…, 1), of all rows or of the rows in `index`."""
        raise NotImplementedError

    def forward(self, rows_OI: Tensor, index: Tensor | None = None) -> Tensor:
        """Fake-quantize rows.

        Args:
            rows_OI: the whole weight (O, I), or some of its rows, shape (…, I).
            index: indices of these rows, shape (…); None: the whole weight.
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
    """LSQ: a learned step per row."""

    def __init__(self, entry: WeightQParams, scales_O: Tensor) -> None:
        super().__init__(entry)
        self.step = nn.Parameter(scales_O.detach().clone().to(torch.float32))

    def steps(self, rows_OI: Tensor, index: Tensor | None) -> Tensor:
        step = self.step if index is None else self.step[index]
        return positive(step).unsqueeze(-1)


class MinmaxSteps(WeightGrid):
    """One step per row, computed from the row's current maximum; no learned parameters."""

    def __init__(self, entry: WeightQParams, scales_O: Tensor) -> None:
        super().__init__(entry)

    def steps(self, rows_OI: Tensor, index: Tensor | None) -> Tensor:
        largest = rows_OI.detach().abs().amax(dim=-1, keepdim=True)
        steps = largest / self.quant_max
        return torch.where(steps < SMALLEST_SCALE, 1.0, steps)


MakeWeightGrid = Callable[[WeightQParams, Tensor], WeightGrid]
"""(entry of a weight, initial steps) → its grids."""


class LinearOnGrid(nn.Linear):
    """A Linear layer whose weight is fake-quantized by `weight_grid`."""

    weight_grid: WeightGrid

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight_grid(self.weight), self.bias)


class EmbeddingOnGrid(nn.Embedding):
    """An embedding whose looked-up rows are fake-quantized by `weight_grid`."""

    weight_grid: WeightGrid

    def forward(self, input: Tensor) -> Tensor:
        return self.weight_grid(super().forward(input), input)


def put_weights_on_learned_grids_(
    model: PreTrainedModel, start: QuantizedWeights, make_grid: MakeWeightGrid, noise: float = 1.0
) -> dict[str, WeightGrid]:
    """Make every quantized weight of `model` trainable on its grid from `start`, in place.

    Args:
        noise: share of a weight's values that is quantized in a training pass.

    Returns: weight name → its grids, which become submodules of the model.
    """
    grids = {entry.fqn: make_grid(entry, start.scales[entry.fqn]) for entry in start.entries}
    shared = {name: grids[first] for name, first in start.tied.items() if first in grids}
    for name, grid in {**grids, **shared}.items():
        module = model.get_submodule(name.removesuffix(".weight"))
        module.__class__ = _class_on_grid(module)
        module.weight_grid, grid.noise = grid, noise
    return grids


def _class_on_grid(module: nn.Module) -> type[nn.Module]:
    """The subclass that behaves like the module's class but fake-quantizes its weight."""
    own = type(module)
    if own is nn.Linear:
        return LinearOnGrid
    if own is nn.Embedding:
        return EmbeddingOnGrid
    if isinstance(module, nn.Embedding):
        # BART scales embeddings and shifts positions: its own `forward` runs first, and its call
        # of `nn.Embedding.forward` reaches ours
        return new_class(f"{own.__name__}OnGrid", (own, EmbeddingOnGrid))
    raise ModelError(
        f"the weight of a {own.__name__} cannot be trained on a grid; supported: Linear and "
        "Embedding; add it in src/attar/quantization/learning/weights_on_grid.py"
    )


@torch.no_grad()
def stored_weights(
    model: PreTrainedModel, grids: dict[str, WeightGrid], start: QuantizedWeights
) -> QuantizedWeights:
    """The trained weights in stored form: integers with their steps, and the remaining floats."""
    state = model.state_dict()
    integers: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for entry in start.entries:
        weight = state[entry.fqn].to(torch.float32)
        scale = grids[entry.fqn].steps(weight, None)[:, 0]
        integers[entry.fqn] = quantize(weight, grid_of(entry, scale), axis=0)
        scales[entry.fqn] = scale
    floats = {name: state[name].clone() for name in start.floats}
    return QuantizedWeights(start.entries, integers, scales, floats, start.tied)
