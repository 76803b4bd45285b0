"""Handle failures in a step: a NaN or infinite loss, gradient or prediction stops training before
it reaches the weights; running out of memory halves the micro-batch."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from attar.errors import NonFiniteError, ran_out_of_memory

T = TypeVar("T")
MAX_REASON = 120
"""Maximum number of characters of an allocator's message to repeat."""
SHOWN = 8
"""Maximum number of rows or tensors named in a message."""
REMEDIES = 'lower learning_rate, lower max_grad_norm, set precision = "fp32", or look at these rows'


def require_finite_loss(examples: Tensor, rows: Sequence[int], step: int) -> None:
    """Raise NonFiniteError if a loss is NaN or infinite.

    Args:
        examples: each example's share of the loss, shape (B,).
        rows: their row numbers in the train split.
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
    """Raise NonFiniteError if the norm of the gradient is NaN or infinite.

    Args:
        norm: over all gradients together.
        rows: the batch's row numbers in the train split.
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
    """Whether every weight is finite."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def halving(work: Callable[[int], T], size: int, halved: Callable[[int, str], None]) -> T:
    """Call `work(size)`; as long as memory runs out, retry with half the size, down to 1.

    Args:
        work: must have no side effects that affect a second attempt.
        halved: called with the new size and the reason before each further attempt.

    Raises:
        MemoryError, RuntimeError: memory ran out at size 1. Any other error is raised at once.
    """
    while True:
        try:
            return work(size)
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not ran_out_of_memory(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0][:MAX_REASON]
        # Outside of the handler, because its traceback keeps the tensors of the attempt alive.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = -(-size // 2)
        halved(size, reason)
