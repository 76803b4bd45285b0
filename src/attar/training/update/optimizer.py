"""AdamW with weight decay on matrices only.

Decay pulls weights towards 0, which is a prior for matrices; a bias is an offset and a norm's scale
has its neutral place at 1, so neither is decayed. Both are vectors, matrices and embeddings are
not: the number of dimensions tells them apart in every family, without a list of names.

The fused kernel reads each weight, gradient and moment once; it is as exact as the others from run
to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW

from attar.training.config import TrainStep


def build_optimizer(
    model: nn.Module, config: TrainStep, rates: Mapping[str, float] | None = None
) -> AdamW:
    """AdamW over all trainable parameters; tied ones are counted once.

    Args:
        model: everything that is trained, what the loss learns included.
        rates: parameter name → factor on the learning rate, where it is not 1.
    """
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_decayed, rate = parameter.ndim >= 2, (rates or {}).get(name, 1.0)
        decay = config.weight_decay if is_decayed else 0.0
        empty = {"params": [], "weight_decay": decay, "rate": rate}
        groups.setdefault((is_decayed, rate), empty)["params"].append(parameter)
    ordered = [groups[key] for key in sorted(groups, reverse=True)]
    learned = [parameter for group in ordered for parameter in group["params"]]
    return AdamW(
        ordered,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=all(p.device.type in ("cpu", "cuda") for p in learned),
    )


def set_learning_rate_(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group the learning rate, times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]
