"""Sensitivity of a teacher's prediction to each dimension of each hidden state.

One backward pass per batch gives the gradient of v·z with respect to every hidden state, for logits
z and random signs v; the mean of its square over v is the sum of the squared derivatives of all
logits. A few batches of training texts before the first step are enough; the teacher is not
changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from attar.losses.sensitivity_mse import SquaredGradients
from attar.losses.targets import Targets
from attar.losses.term import Needs
from attar.numerics.logits import Taught, row_values, with_gradients
from attar.seeds import derive_seed
from attar.training.forward import fed, forward
from attar.training.job import Job
from attar.training.teachers import Teacher

Squares = dict[str, list[Tensor]]
NUM_ROWS = 256
"""As many texts as for calibration."""


def learn_squared_gradients(job: Job) -> None:
    """Measure the sensitivity on the first training rows, if a loss needs it."""
    if job.teacher is None or not job.loss.needs.gradients:
        return
    size = job.evaluation_batch_size
    steps = range(min(len(job.batches), -(-NUM_ROWS // job.config.batch_rows) + 1))
    first = np.concatenate([job.batches.at(step) for step in steps])[:NUM_ROWS]
    parts = (first[begin : begin + size] for begin in range(0, len(first), size))
    made = (job.train.batch(rows, job.model.device) for rows in parts)
    job.loss.learn(squared_gradients_of(job.teacher, made, derive_seed(job.seed, "signs")))


def squared_gradients_of(
    teacher: Teacher, batches: Iterable[tuple[Mapping[str, Tensor], Targets]], seed: int
) -> dict[str, list[SquaredGradients]]:
    """Stack → one `SquaredGradients` per hidden state, starting with the embedding output.

    Args:
        batches: at least one.
        seed: for the random signs.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: Squares = {}
    tokens: dict[str, Tensor] = {}
    embeddings = teacher.model.get_input_embeddings()
    frozen = [p for p in embeddings.parameters() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)  # so that hidden states have a gradient
    try:
        for inputs, targets in batches:
            _add_batch_(sums, tokens, teacher, inputs, targets, generator)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    return {
        stack: [_mean_of(squares, tokens[stack]) for squares in states]
        for stack, states in sums.items()
    }


def _add_batch_(
    sums: Squares,
    tokens: dict[str, Tensor],
    teacher: Teacher,
    inputs: Mapping[str, Tensor],
    targets: Targets,
    generator: torch.Generator,
) -> None:
    teacher.model.eval()
    with torch.enable_grad():
        outputs = forward(teacher.model, fed(inputs, teacher.input_names), Needs(hidden=True))
        counted = targets.predicted
        if counted.ndim < len(outputs.logits.shape) - 1:  # masked language model: all tokens
            counted = counted[:, None].expand(*outputs.logits.shape[:2])
        index = torch.nonzero(counted, as_tuple=True)

        def projected(logits: Tensor, *_: Taught) -> Tensor:
            centred = logits - logits.mean(dim=-1, keepdim=True) if logits.shape[-1] > 1 else logits
            signs = torch.randint(0, 2, centred.shape, generator=generator).to(centred) * 2 - 1
            return (signs * centred).sum(dim=-1)

        values, found = row_values([projected], index, outputs.logits, index[0], factors=[1.0])
        states = [(stack, state) for stack, own in outputs.hidden.items() for state in own]
        # A state that does not influence the logits is an error: zeros would look like a
        # measurement.
        total = with_gradients(values.sum(), found)
        gradients = torch.autograd.grad(total, [state for _, state in states])
    for stack, mask in targets.masks.items():
        first, real = torch.zeros_like(mask), mask.sum()
        first[:, 0] = mask[:, 0]
        counted = torch.stack([first.sum(), real - first.sum()]).double()
        tokens[stack] = tokens.get(stack, torch.zeros_like(counted)) + counted
        own = [g for (name, _), g in zip(states, gradients, strict=True) if name == stack]
        width = outputs.hidden[stack][0].shape[-1]
        kept = sums.setdefault(stack, [torch.zeros(2, width).double() for _ in own])
        for total, gradient in zip(kept, own, strict=True):
            squares = gradient.double().square()
            total[0] += (squares * first.unsqueeze(-1)).sum(dim=(0, 1)).cpu()
            total[1] += (squares * (mask - first).unsqueeze(-1)).sum(dim=(0, 1)).cpu()


def _mean_of(squares: Tensor, tokens: Tensor) -> SquaredGradients:
    counts = tokens.cpu()
    return SquaredGradients(
        squares / counts.clamp(min=1).unsqueeze(1), first_share=float(counts[0] / counts.sum())
    )
