"""Linear layers whose integers stay and whose rows' steps learn.

The problem: a few dozen updates on a few texts cannot turn integers for the better. A weight that
lies near the end of its cell is turned by the first update, whatever the texts say, and one in the
middle is never turned. The idea: leave every integer as the weight rule rounded it, and learn what
multiplies it, one step a row:

    y = step ⊙ (x qᵀ) + b,   ∂y/∂step = x qᵀ

That is exact, where LSQ's gradient (round(w/s) − w/s) is 0 for a weight that lies on its grid. No
gradient of the size of a weight is ever made.

Source: the second stage of EfficientQAT (Chen et al. 2024), which learns steps alone.
Shape letters: `O` rows, `I` inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.quantization.learning.quantizers import positive
from attar.quantization.weights.nearest import QuantizedWeights


class LinearOnIntegers(nn.Linear):
    """A Linear layer whose weight (O, I) holds integers, as floats, with a learned step a row."""

    step: nn.Parameter

    def forward(self, input: Tensor) -> Tensor:
        product = functional.linear(input, self.weight) * positive(self.step)
        return product if self.bias is None else product + self.bias


def put_steps_on_integers_(model: PreTrainedModel, weights: QuantizedWeights) -> None:
    """Make the rows' steps of the Linear layers in `weights` learn; integers stay.

    Raises:
        ModelError: a weight of another module.
    """
    for entry in weights.entries:
        module = model.get_submodule(entry.fqn.removesuffix(".weight"))
        if type(module) is not nn.Linear:
            raise ModelError(
                f"the steps of a {type(module).__name__} cannot learn; known: Linear; teach it in "
                "src/attar/quantization/learning/steps_on_integers.py"
            )
        module.__class__ = LinearOnIntegers
        with torch.no_grad():
            module.weight.copy_(weights.integers[entry.fqn])
        module.weight.requires_grad_(False)
        step = weights.scales[entry.fqn].detach().clone().to(torch.float32)
        module.step = nn.Parameter(step)


def learned_steps(model: PreTrainedModel, weights: QuantizedWeights) -> dict[str, Tensor]:
    """Weight name → the steps of its rows (O,), as they are stored."""
    steps: dict[str, Tensor] = {}
    for entry in weights.entries:
        module = model.get_submodule(entry.fqn.removesuffix(".weight"))
        assert isinstance(module, LinearOnIntegers)
        steps[entry.fqn] = positive(module.step).detach().clone()
    return steps
