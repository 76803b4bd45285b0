"""`sensitivity_mse`: hidden states weighted by how much the teacher's prediction depends on them.

The problem: a plain hidden-state loss spends the student's capacity equally on every dimension of
every token, and a loss weighted by spread (`eofd`) on the dimensions that vary most, whether or not
the prediction depends on them. The idea: to first order a change δ of a hidden state changes the
logits by J δ, so a squared difference is weighted by the squared Jacobian:

    s_(c,d) = mean over texts, tokens of class c and directions v of ( ∂(v·z) / ∂h_(t,d) )²
    w = ( s / mean(s) )^power,  scaled to a mean of 1 over real tokens and dimensions
    loss = mean( w · (H^s W − H^t)² )

Two classes of tokens: the first of a text, which an encoder's head reads, and the rest. z are the
teacher's centred logits, v random signs. The weights are computed once, from a few training
batches, before the first step; a step costs as much as with hidden_mse. power = 0 is exactly
hidden_mse.

Source: ours; the same first-order argument is used in Optimal Brain Damage (LeCun et al. 1990), and
for choosing quantization ranges by squared output gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attar.losses.config import SensitivityMse
from attar.losses.states import StatesTerm, squared_distance
from attar.losses.targets import Targets
from attar.losses.term import Needs, Pair


@dataclass(frozen=True)
class SquaredGradients:
    """How strongly the teacher's prediction depends on one hidden state, averaged over texts."""

    squares: Float[Tensor, "2 D"]
    """Mean squared derivative per dimension: for first tokens, and for all others."""
    first_share: float
    """Share of the real tokens that are the first of a text."""


class SensitivityMseTerm(StatesTerm):
    """Squared error of mapped hidden states, weighted by the sensitivity of the teacher's
    prediction."""

    needs = Needs(hidden=True, gradients=True)

    def __init__(self, config: SensitivityMse, objective: str, pair: Pair | None) -> None:
        super().__init__(config, objective, pair)
        assert pair is not None
        self._power = config.power
        for stack, layer_map in self.states.maps.items():
            for index in set(layer_map.values()):
                ones = torch.ones(2, pair.teacher[stack].hidden_size)
                self.register_buffer(_name(stack, index), ones)

    def learn(self, found: Mapping[str, Sequence[SquaredGradients]]) -> None:
        """Compute the weights from the measured sensitivities.

        Args:
            found: stack → one measurement per hidden state.
        """
        for stack, layer_map in self.states.maps.items():
            for index in set(layer_map.values()):
                weights = gradient_weights(found[stack][index], self._power)
                self.get_buffer(_name(stack, index)).copy_(weights)

    def of_pair(
        self, stack: str, index: int, own: Tensor, taught: Tensor, targets: Targets
    ) -> Tensor:
        first, rest = self.get_buffer(_name(stack, index)).to(own.dtype)
        mask = targets.masks[stack]
        is_first = torch.zeros_like(mask)
        is_first[:, 0] = 1
        sums = squared_distance(own, taught, mask * is_first, first)
        sums = sums + squared_distance(own, taught, mask * (1 - is_first), rest)
        return sums / self.states.num_pairs


def gradient_weights(found: SquaredGradients, power: float) -> Float[Tensor, "2 D"]:
    """Weights with a mean of 1 over real tokens and dimensions.

    Law: power 0 gives ones, and so do gradients that are all zero.

    Example:
        >>> found = SquaredGradients(torch.tensor([[4.0, 0.0], [1.0, 1.0]]), first_share=0.5)
        >>> gradient_weights(found, 1.0).tolist()
        [[2.6666667461395264, 0.0], [0.6666666865348816, 0.6666666865348816]]
    """
    shares = torch.tensor([found.first_share, 1 - found.first_share]).unsqueeze(1)
    raised = found.squares.float().clamp(min=0).pow(power)
    mean = (raised.mean(dim=1, keepdim=True) * shares).sum()
    return raised / mean if float(mean) > 0 else torch.ones_like(raised)


def _name(stack: str, index: int) -> str:
    return f"weights_{stack}_{index}"
