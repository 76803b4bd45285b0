"""The state of a training run: its tensors under stable names, and its position as JSON data.

Everything else a run depends on is a pure function of (settings, step): the order of the data, the
learning rate, and the dropout masks, whose generator is seeded again for every step. So there is no
generator state to store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass
class Place:
    """Position of a run. Plain data, whose numbers JSON stores exactly."""

    step: int = 0
    """Number of optimizer steps done."""
    tokens: int = 0
    """Number of tokens the model has read so far."""
    evaluated_step: int = -1
    """The step of the latest evaluation; −1: there was none."""
    best_step: int | None = None
    best_value: float | None = None
    best_loss: float | None = None
    """Validation loss of the best step; it breaks ties of the value."""
    micro_batch_size: int | None = None
    """The micro-batch size after memory ran out; None: it never did."""
    seconds: float = 0.0
    """Time spent on the steps so far, over all sessions. Steps that are repeated after a kill count
    once."""
    history: list[dict[str, Any]] = field(default_factory=list)
    since_logged: list[dict[str, Any]] = field(default_factory=list)
    """Steps since the last line of the history, for the mean in the next one."""


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones once. These are the model's own tensors, not
    copies.
    """
    named = chain(model.named_parameters(), model.named_buffers())
    return {name: tensor.detach() for name, tensor in named}


def fill_weights_(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy tensors by name into a model with exactly these names."""
    own = weights_of(model)
    assert own.keys() == weights.keys(), f"weights differ: {sorted(own.keys() ^ weights.keys())}"
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def moments_of(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state of each parameter, as "<moment>/<parameter>"; empty before the first
    step. Numbers, such as Adafactor's step count, become tensors."""
    return {
        f"{moment}/{name}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


def fill_moments_(model: nn.Module, optimizer: Optimizer, moments: Mapping[str, Tensor]) -> None:
    """Load the moments of an earlier run into the optimizer."""
    parameters = dict(model.named_parameters())
    for key, tensor in moments.items():
        moment, _, name = key.partition("/")
        parameter = parameters[name]
        optimizer.state[parameter][moment] = tensor.to(parameter.device)
