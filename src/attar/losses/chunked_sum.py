"""A sum over many predictions without holding more than a few of them at a time.

The problem: a language model with 50,000 words predicts at every token, and a divergence of its
logits makes half a dozen tensors as large as the logits themselves, which for autograd all stay.
The idea: a prediction's value and its gradient depend on its own row only. So rows are taken in
chunks, and each chunk's gradient is found while the chunk is at hand; what stays is the gradient of
the logits, which is needed anyway:

    memory = gradient (B, S, V) + about 8 chunks        instead of about 8 × (B, S, V)

Rows that do not count are never touched. Left out: second derivatives.

Shapes: B examples, S predictions of each, N predictions that count, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LEAST_VALUES = 2**20
"""Logits in a chunk, at the least: 4 MiB in float32 keep every core busy."""
MOST_CHUNKS = 16
"""Eight tensors of a sixteenth are half of the gradient that is needed anyway; more and smaller
chunks would save little and cost an accelerator many small launches."""

Rowwise = Callable[..., Tensor]
"""(N, V), and as many other values by row → (N,); row by row."""


def sum_by_example(
    function: Rowwise,
    counted: Bool[Tensor, "B S"],
    logits: Float[Tensor, "B S V"],
    *others: Tensor,
) -> Float[Tensor, " B"]:
    """Σ over each example's counting predictions of function(logits, others).

    Law: whatever the size of a chunk, value and gradient are those of all rows at once. Gradient
    reaches the logits only, once.

    Args:
        others: (B, S, …), such as the teacher's logits or the labels.
    """
    owners, places = torch.nonzero(counted, as_tuple=True)
    rows = max(LEAST_VALUES // logits.shape[-1], -(-len(owners) // MOST_CHUNKS), 1)
    if len(owners) > rows:
        cuts = range(0, len(owners), rows)
        chunks = [(owners[i : i + rows], places[i : i + rows]) for i in cuts]
        return _ByChunks.apply(logits, function, chunks, others)  # pyright: ignore
    found = function(*(value[owners, places] for value in (logits, *others)))
    return found.new_zeros(len(counted)).index_add(0, owners, found)


class _ByChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        function: Rowwise,
        chunks: Sequence[tuple[Tensor, Tensor]],
        others: Sequence[Tensor],
    ) -> Tensor:
        learns = bool(ctx.needs_input_grad[0])
        sums = logits.new_zeros(len(logits))
        gradient = torch.zeros_like(logits) if learns else None
        for chunk in chunks:
            own = logits[chunk].requires_grad_(learns)
            with torch.set_grad_enabled(learns):
                found = function(own, *(value[chunk] for value in others))
            sums.index_add_(0, chunk[0], found.detach())
            if gradient is not None:
                (gradient[chunk],) = torch.autograd.grad(found, own, torch.ones_like(found))
        ctx.gradient = gradient
        return sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        assert ctx.gradient is not None, "a second backward pass through the same loss"
        # In place: a copy would be as large as the logits.
        whole, ctx.gradient = ctx.gradient.mul_(gradients[0][:, None, None]), None
        return whole, None, None, None
