"""AdamW or Adafactor, with weight decay on matrices only, and the learning rate as a pure function
of the step.

Weight decay pulls weights towards 0, a sensible prior for matrices; a bias is an offset, and a
norm's scale is neutral at 1, so neither is decayed. Biases and norms are vectors, so the number of
dimensions distinguishes them from matrices and embeddings in every family, without a list of names.
The fused kernel of AdamW reads each weight, gradient and moment once, and is as reproducible as the
others.

Adafactor (arXiv 1804.04235) is transformers' implementation with the settings of T5's training: no
momentum, updates clipped to a root mean square of 1, and a learning rate relative to the root mean
square of each weight matrix. Its second moment is the outer product of row and column means, so it
needs almost no memory. Its "relative step" min(0.01, 1 / √t) is the schedule constant_inverse_sqrt
with learning_rate = 0.01 and warmup_steps = 10,000. torch's Adafactor is not used, because it
limits the rate to 1 / √t, and a row without any gradient becomes NaN with the published ε₁ of
1e-30.

The learning rate depends only on the step, so a resumed run has no schedule to restore:

    warm-up      peak · s / W                          s < W
    linear       peak · (r + (1 − r) (S − s) / (S − W))
    cosine       peak · (r + (1 − r) ½(1 + cos(π (s − W)/(S − W))))
    inverse_sqrt peak / √((s − W + τ)/τ)               τ = W, or 10,000 without warm-up
    constant     peak

    constant_inverse_sqrt    peak · min(1, √(W / (s + 1)))        T5's own: constant for W steps

s counts optimizer steps from 0, S is their number, W the warm-up's, r is `minimum_ratio`. With r =
0, all but the last equal transformers' schedulers; so with a warm-up, the first step has a learning
rate of 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW, Optimizer
from transformers.optimization import Adafactor

from attar.training.config import TrainStep


def build_optimizer(
    model: nn.Module, config: TrainStep, rates: Mapping[str, float] | None = None
) -> Optimizer:
    """The optimizer over all trainable parameters; tied ones are counted once.

    Args:
        model: everything that is trained, including parameters of the loss.
        rates: parameter name → factor of the learning rate, if it is not 1.
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
    if config.optimizer == "adafactor":
        return Adafactor(ordered, lr=config.learning_rate, relative_step=False)
    learned = [parameter for group in ordered for parameter in group["params"]]
    return AdamW(
        ordered,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=all(p.device.type in ("cpu", "cuda") for p in learned),
    )


def set_learning_rate_(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every group, times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]


ScheduleKind = Literal["linear", "cosine", "inverse_sqrt", "constant_inverse_sqrt", "constant"]

TIMESCALE_WITHOUT_WARMUP = 10_000
"""transformers' default time scale of the inverse square root without warm-up, also used by T5."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every optimizer step of a run."""

    kind: ScheduleKind
    peak: float
    total_steps: int
    warmup_steps: int
    minimum_ratio: float = 0.0
    """Final value of linear and cosine, as a share of `peak`."""

    def __call__(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0.

        Example:
            >>> rate = Schedule("linear", peak=1.0, total_steps=10, warmup_steps=2)
            >>> [rate(0), rate(1), rate(2), rate(6), rate(10)]
            [0.0, 0.5, 1.0, 0.5, 0.0]
        """
        if self.kind == "constant_inverse_sqrt":
            constant = self.warmup_steps or TIMESCALE_WITHOUT_WARMUP
            return self.peak * min(1.0, math.sqrt(constant / (step + 1)))
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        return self.peak * self._after_warmup(step)

    def _after_warmup(self, step: int) -> float:
        since = step - self.warmup_steps
        if self.kind == "constant":
            return 1.0
        if self.kind == "inverse_sqrt":
            timescale = self.warmup_steps or TIMESCALE_WITHOUT_WARMUP
            return 1 / math.sqrt((since + timescale) / timescale)
        progress = min(since / max(1, self.total_steps - self.warmup_steps), 1.0)
        left = 1 - progress if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        return self.minimum_ratio + (1 - self.minimum_ratio) * left
