"""Everything that defines a training run, fixed before the first step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.data.batches import Batches, LengthGroupedBatches
from attar.data.corpus.order import ChunkBatches
from attar.losses.config import Contrastive, CrossEntropy
from attar.losses.targets import Targets
from attar.losses.total import TotalLoss
from attar.seeds import derive_seed
from attar.tasks.table import KINDS
from attar.training.config import TrainStep
from attar.training.forward import fed, forward
from attar.training.objectives.examples import Examples, Streamed
from attar.training.rollouts import Rollouts
from attar.training.teachers import Teacher

EVALUATION_BATCH_COST = 1 / 3
"""Time of an evaluation batch relative to an optimizer step, which costs about three forward
passes. Used only to estimate the remaining time."""


@dataclass(frozen=True)
class Job:
    """A model, its training data, and its settings."""

    name: str
    config: TrainStep
    seed: int
    model: PreTrainedModel
    input_names: tuple[str, ...]
    """Inputs of the student; a teacher may have more."""
    teacher: Teacher | None
    loss: TotalLoss
    train: Examples
    validation: Examples
    metrics: tuple[str, ...]
    """The first one selects the best checkpoint."""
    rollouts: Rollouts | None = None
    """Samples continuations in every step, if a loss needs them."""
    penalty: Callable[[], Tensor] | None = None
    """A penalty on the parameters, added to the loss in every step."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Parameter name → factor of its learning rate, if it is not 1."""

    @cached_property
    def learned(self) -> nn.Module:
        """Everything that is trained and saved: the model, and the parameters and buffers of the
        loss.
        """
        return nn.ModuleDict({"model": self.model, "loss": self.loss})

    @cached_property
    def batches(self) -> Batches:
        config, seed = self.config, derive_seed(self.seed, "order")
        if (train := self.streamed) is not None:
            is_shuffled = config.order == "shuffled"
            size, anew = len(train), train.is_drawn_anew
            return ChunkBatches(size, config.batch_rows, seed, is_shuffled, anew)
        return LengthGroupedBatches(self.train.lengths, config.batch_rows, seed)

    @cached_property
    def total_steps(self) -> int:
        return self.config.num_steps(len(self.train), self.train_tokens)

    @cached_property
    def train_tokens(self) -> int:
        """Number of tokens the model reads per epoch."""
        streamed = self.streamed
        return int(self.train.lengths.sum()) if streamed is None else streamed.tokens

    @property
    def streamed(self) -> Streamed | None:
        """The training rows, if they are read in arbitrary order; None: batches are grouped by
        length.
        """
        return self.train if isinstance(self.train, Streamed) else None

    @cached_property
    def evaluation_steps(self) -> frozenset[int]:
        config, rows, tokens = self.config, len(self.train), self.train_tokens
        asked = (config.steps_for(budget, rows, tokens) for budget in config.evaluate_at_tokens)
        reached = {step for step in asked if 0 < step < self.total_steps}
        return evenly_spread(self.total_steps, config.evaluations) | reached

    def rows_read(self, steps: int) -> int:
        """Number of rows read in `steps` steps; a row counts each time it is read."""
        return self.config.rows_read(steps, len(self.train))

    @property
    def evaluation_batch_size(self) -> int:
        return self.config.micro_batch_size or self.config.batch_rows

    @property
    def evaluation_units(self) -> int:
        """Cost of one evaluation, in optimizer steps."""
        batches = -(-len(self.validation) // self.evaluation_batch_size)
        return int(batches * EVALUATION_BATCH_COST)

    def units(self, step: int, evaluated_step: int) -> int:
        """Cost of `step` steps and the evaluations up to `evaluated_step`, in optimizer steps."""
        evaluations = sum(due <= evaluated_step for due in self.evaluation_steps)
        return step + evaluations * self.evaluation_units


def first_batch(job: Job) -> Callable[[bool], None]:
    """Forward and backward pass of the student's first batch in bf16 or float32, to time both
    formats.

    Works on a copy of the model, made at the first call.
    """

    embeds = KINDS[job.loss.objective].embeds
    loss = TotalLoss([Contrastive() if embeds else CrossEntropy()], job.loss.objective)
    rows = job.batches.at(0)[: job.evaluation_batch_size]

    @cache
    def prepared() -> tuple[PreTrainedModel, dict[str, Tensor], Targets, list[nn.Parameter]]:
        model = cast(PreTrainedModel, copy.deepcopy(job.model).train())
        inputs, targets = job.train.batch(rows, model.device)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return model, fed(inputs, job.input_names), targets, learned

    def step(is_bf16: bool) -> None:
        model, inputs, targets, learned = prepared()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=is_bf16):
            given = forward(model, inputs, job.loss.needs)
        total = loss(given, None, targets, job.train.counts(rows)).total
        last_states = [states[-1].sum() for states in given.hidden.values()]
        torch.autograd.grad(total + sum(last_states), learned, allow_unused=True)

    return step


def evenly_spread(total_steps: int, evaluations: int) -> frozenset[int]:
    """Steps after which the model is evaluated on validation: evenly spaced, the last one at the
    end.

    Example:
        >>> sorted(evenly_spread(10, 3))
        [3, 7, 10]
    """
    count = max(min(evaluations, total_steps), 1)  # a model with 0 training steps is evaluated once
    return frozenset(round(total_steps * k / count) for k in range(1, count + 1))
