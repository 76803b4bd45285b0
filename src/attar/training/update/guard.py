"""What can go wrong in a step: a loss, gradient or prediction that is NaN or infinite stops
training before it reaches the weights; memory that runs out halves the micro-batch."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from attar.errors import NonFiniteError, ran_out_of_memory

T = TypeVar("T")
MAX_REASON = 120
"""Characters of an allocator's message that are repeated."""
SHOWN = 8
"""Rows or tensors named in a message."""
REMEDIES = 'lower learning_rate, lower max_grad_norm, set precision = "fp32", or look at these rows'


def require_finite_loss(examples: Tensor, rows: Sequence[int], step: int) -> None:
    """Refuse a loss with NaN or infinity in it.

    Args:
        examples: each example's share of the loss, shape (B,).
        rows: their row numbers in the train split.
    Raises:
        NonFiniteError: naming the step and exactly the rows at fault.
    """
    if bool(examples.isfinite().all()):
        return
    values = examples.tolist()
    bad = torch.nonzero(~examples.isfinite())[:, 0].tolist()
    named = ", ".join(f"{rows[i]} ({values[i]})" for i in bad[:SHOWN])
    raise NonFiniteError(
        f"step {step}: the loss of {len(bad)} of {len(rows)} examples is not finite, train rows "
        f"{named}{', …' if len(bad) > SHOWN else ''}; nothing was updated with it; {REMEDIES}"
    )


def require_finite_gradient(norm: Tensor, model: nn.Module, rows: Sequence[int], step: int) -> None:
    """Refuse a gradient whose norm is NaN or infinite.

    Args:
        norm: over all gradients together.
        rows: the batch's row numbers in the train split.
    Raises:
        NonFiniteError: naming the step, the tensors at fault and the batch's rows.
    """
    if bool(norm.isfinite()):
        return
    bad = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    where = ", ".join(bad[:SHOWN]) + (", …" if len(bad) > SHOWN else "")
    raise NonFiniteError(
        f"step {step}: the gradient's norm is {norm.item()} "
        f"({f'not finite in {where}' if bad else 'every value is finite, their squares are not'}), "
        f"batch of train rows {', '.join(map(str, rows))}; nothing was updated with it; {REMEDIES}"
    )


def is_finite(model: nn.Module) -> bool:
    """True if every weight is a number."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def halving(work: Callable[[int], T], size: int, halved: Callable[[int, str], None]) -> T:
    """`work(size)`; while memory runs out, with half the size, down to 1.

    Args:
        work: must leave nothing behind that a second attempt would see.
        halved: called with the new size and the reason before each further attempt.
    Raises:
        MemoryError, RuntimeError: memory ran out at size 1; any other error passes at once.
    """
    while True:
        try:
            return work(size)
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not ran_out_of_memory(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0][:MAX_REASON]
        # Outside of the handler, whose traceback holds the tensors of the attempt.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = -(-size // 2)
        halved(size, reason)
