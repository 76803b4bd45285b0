"""Stop before what is no number reaches the weights or the artifact; say where it came from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attar.errors import NonFiniteError

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
