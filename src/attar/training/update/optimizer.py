"""AdamW with weight decay on matrices only.

Decay pulls weights towards 0, which is a prior for matrices; a bias is an offset and a norm's scale
has its neutral place at 1, so neither is decayed. Both are vectors, matrices and embeddings are
not: the number of dimensions tells them apart in every family, without a list of names.

The fused kernel reads each weight, gradient and moment once; it is as exact as the others from run
to run.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import AdamW

from attar.training.config import TrainStep


def build_optimizer(model: nn.Module, config: TrainStep) -> AdamW:
    """AdamW over all trainable parameters; tied ones are counted once."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=all(p.device.type in ("cpu", "cuda") for p in trainable),
    )


def set_learning_rate_(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
