"""What a training run is at one moment: its tensors under stable names, and its place as plain
data.

Everything else a run depends on is a pure function of (settings, step): the order of the data, the
learning rate, and the dropout masks, whose generator is seeded anew for every step. So there is no
generator state to store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""AdamW's state of a parameter: running means of gradient and squared gradient, and how many steps
they have seen.
"""


@dataclass
class Place:
    """Where a run stands. Plain data: JSON keeps every number of it exactly."""

    step: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Tokens the model has read in them."""
    evaluated_step: int = 0
    """The step of the newest evaluation."""
    best_step: int | None = None
    best_value: float | None = None
    micro_batch_size: int | None = None
    """What was left of the configured one when memory ran out; None: it never did."""
    seconds: float = 0.0
    """Spent on the steps so far, over all sessions; work that a kill lost and that is done again
    counts once."""
    history: list[dict[str, Any]] = field(default_factory=list)
    since_logged: list[dict[str, Any]] = field(default_factory=list)
    """Steps that the next line of the history will be the mean of."""


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones once: the model's own tensors, no copies."""
    return {name: tensor.detach() for name, tensor in _named_tensors(model)}


def fill_weights_(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy tensors by name into a model with exactly these names."""
    own = weights_of(model)
    assert own.keys() == weights.keys(), f"weights differ: {sorted(own.keys() ^ weights.keys())}"
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def moments_of(model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    """The optimizer's tensors as "<moment>/<parameter>"; empty before the first step."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def fill_moments_(model: nn.Module, optimizer: AdamW, moments: Mapping[str, Tensor]) -> None:
    """Give the optimizer the moments of an earlier run."""
    for name, parameter in model.named_parameters():
        if f"step/{name}" in moments:
            optimizer.state[parameter] = {
                moment: moments[f"{moment}/{name}"].to(parameter.device) for moment in MOMENTS
            }


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
