"""The work of training: its operations, and the time of its matrix products alone, which is the
floor of a step's time.

    operations     rows · (3 · student + 1 · teacher)      (a backward pass is 2 forwards)

A step forward and backward multiplies each weight matrix three times with as many rows as there are
tokens: for its output, and for the gradients of its input and of itself. Only these products are
timed, each on the rows of one micro-batch; attention between tokens, norms, activations,
the loss, the optimizer and padding are what a real step has beside them. A teacher multiplies each
of its matrices once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from attar.models.cost import Cost

ROWS_OF_A_HEAD = 1024
"""A wider matrix than this many times its other side is multiplied in parts, as a head is."""
WIDE = 8
MULTIPLIED = ("Linear", "Conv1D")
"""GPT-2's Conv1D is a Linear with its weight turned round."""


def training_flops(student: Cost, teacher: Cost | None, rows: int, tokens: int) -> int:
    """Operations of training on so many rows.

    Args:
        teacher: asked about every row; None: there is none, or its answers are stored.
        tokens: of a row.
    """
    asked = 0 if teacher is None else teacher.flops(1, tokens)
    return rows * (3 * student.flops(1, tokens) + asked)


def head_flops(model: PreTrainedModel, tokens: int) -> int:
    """Operations of a language head on one text; 0 where there is none."""
    head: Any = model.get_output_embeddings()
    return 0 if head is None else 2 * tokens * head.weight.numel()


def matmul_seconds(
    model: nn.Module, tokens: int, *, products: int = 3, dtype: torch.dtype
) -> float:
    """Seconds of the products of every weight matrix with `tokens` rows.

    Args:
        products: 3 for training; 1 for a forward pass.
        dtype: of the products.
    """
    shapes = Counter(_shapes(model))
    device = next(model.parameters()).device
    return sum(
        count * _seconds(shape, tokens, products, dtype, device) for shape, count in shapes.items()
    )


def _shapes(model: nn.Module) -> Iterator[tuple[int, int]]:
    """Input and output features of every matrix that is multiplied."""
    matrices: Any = (m for m in model.modules() if type(m).__name__ in MULTIPLIED)
    for module in matrices:
        first, second = module.weight.shape
        yield (second, first) if isinstance(module, nn.Linear) else (first, second)


def _seconds(
    shape: tuple[int, int], tokens: int, products: int, dtype: torch.dtype, device: torch.device
) -> float:
    width, height = shape
    rows = min(tokens, ROWS_OF_A_HEAD) if height > WIDE * width else tokens
    weight = torch.ones(width, height, dtype=dtype, device=device)
    given = torch.ones(rows, width, dtype=dtype, device=device)
    made = given @ weight  # the first product packs and allocates
    _wait_for(device)
    began = time.perf_counter()
    torch.matmul(given, weight, out=made)
    if products == 3:
        torch.matmul(made, weight.T)
        torch.matmul(given.T, made)
    _wait_for(device)
    return (time.perf_counter() - began) * tokens / rows


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
