"""Row-wise functions of a language model's logits, computed in blocks to save memory.

N predictions over a vocabulary of V are N × V logits: 1.6 GB in float32 for 8,192 tokens and 49,152
vocabulary entries. A loss or a score needs one number per row, while the gradient of a divergence
creates half a dozen tensors of that size. So only the hidden states (N, D) are kept, and the head
is applied to one block of rows at a time:

    z = h Wᵀ                                     one product per block
    f_k(z), dz = Σ_k factor_k · ∂f_k/∂z          a few rows at a time, in the processor's cache
    dh = dz W,  dW += dzᵀ h                      two products per block; dz has replaced z

Values and gradients take the same three products as with full logits; nothing is recomputed. Memory
is dW and one block (two with a teacher), independent of N. The weight of each function in the loss
must be known in advance. Left out: second derivatives.

Letters: N rows · n rows of a block · D hidden size · V vocabulary · K functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from attar.numerics.sparse_distributions import SparseDistributions, SparseLogits

BLOCK_BYTES = 64 * 2**20
"""Size of a block's logits in float32, large enough for the products to run at full speed."""
CACHED_VALUES = 2**20
"""Number of logits that the functions process at once on a CPU: 4 MiB in float32, so that the
temporary tensors of a gradient stay in the cache. An accelerator processes the whole block, because
each operation costs a kernel launch."""

Index = tuple[Tensor, ...]
"""Indices of the rows along the leading axes of logits: (N,) per axis."""
Taught = Tensor | SparseDistributions | None
"""The teacher's outputs for some rows: logits (n, V), or stored sparse distributions."""


class RowLabels(Protocol):
    """Labels of rows: a tensor (N,), or several."""

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


RowFunction = Callable[[Tensor, Taught, Any], Tensor]
"""(logits (n, V), teacher's outputs, labels) → values of these rows, (n,)."""


@dataclass(frozen=True)
class Head:
    """Maps hidden states (N, D) to logits (N, V):

    cap · tanh(scale · (h Wᵀ + b) / cap), or without a cap scale · (h Wᵀ + b)
    """

    weight: Tensor
    """(V, D)."""
    bias: Tensor | None = None
    """(V,)."""
    scale: float = 1.0
    cap: float | None = None

    def to(self, dtype: torch.dtype) -> Head:
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, weight=self.weight.to(dtype), bias=bias)

    def finish(self, products: Tensor) -> Tensor:
        """Compute logits from the products h Wᵀ, in float32 or wider."""
        logits = products.to(torch.promote_types(products.dtype, torch.float32))
        if self.scale != 1.0:
            logits = self.scale * logits
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


class LazyLogits(ABC):
    """Logits (…, V) that are computed or read on demand for indexed rows."""

    shape: Sequence[int]
    dtype: torch.dtype

    @abstractmethod
    def __getitem__(self, index: Index) -> Tensor:
        """(N, V)."""


Logits = Tensor | LazyLogits


class HeadLogits(LazyLogits):
    """Logits of a head applied to hidden states.

    Args:
        hidden: inputs of the head, (…, D).
        precision: dtype of the products; None: dtype of the weight.
    """

    def __init__(self, head: Head, hidden: Tensor, precision: torch.dtype | None = None) -> None:
        self.head, self.hidden = head, hidden
        self.precision = precision or head.weight.dtype
        self.shape = (*hidden.shape[:-1], len(head.weight))
        self.dtype = torch.promote_types(self.precision, torch.float32)

    def __getitem__(self, index: Index) -> Tensor:
        head, hidden = self.head.to(self.precision), self.hidden[index].to(self.precision)
        return head.finish(functional.linear(hidden, head.weight, head.bias))

    def first(self, columns: int) -> HeadLogits:
        """The logits of the first `columns` vocabulary entries."""
        bias = None if self.head.bias is None else self.head.bias[:columns]
        fewer = replace(self.head, weight=self.head.weight[:columns], bias=bias)
        return HeadLogits(fewer, self.hidden, self.precision)


Gradients = list[tuple[Tensor, Tensor]]
"""(tensor, gradient of a scalar with respect to it) pairs."""


def row_values(
    functions: Sequence[RowFunction],
    index: Index,
    logits: Logits,
    labels: RowLabels,
    *,
    teacher: Logits | SparseLogits | None = None,
    factors: Sequence[float] = (),
) -> tuple[Tensor, Gradients]:
    """Values of the functions, (K, N) without gradient, and the gradients of
    Σ_k factor_k · Σ_N value_kN with respect to the tensors that the logits are computed from.

    Up to rounding, the result does not depend on the block size.

    Args:
        labels: labels of these rows.
        factors: one per function; empty if no gradient is needed.
    """
    wanted = bool(factors) and torch.is_grad_enabled()
    own = _rows_of(logits, index, wanted)
    told = _told(teacher, index)
    values = torch.empty(len(functions), len(labels), dtype=logits.dtype, device=labels.device)
    with torch.no_grad():
        for block in blocks(len(labels), logits.shape[-1]):
            z = own.products(block)
            told_block = told(block)
            for rows in _cut(block.start, block.stop, _rows_at_once(z)):
                part = slice(rows.start - block.start, rows.stop - block.start)
                given = told_block(part)
                leaf = z[part].detach().requires_grad_(own.learns)
                with torch.set_grad_enabled(own.learns):
                    made = own.finish(leaf)
                    found = [function(made, given, labels[rows]) for function in functions]
                values[:, rows] = torch.stack(found).detach()
                if own.learns:
                    weights = map(torch.full_like, found, factors)
                    (z[part],) = torch.autograd.grad(found, leaf, list(weights))
            if own.learns:
                own.learn(block, z)
    return values, own.gradients


def _told(
    teacher: Logits | SparseLogits | None, index: Index
) -> Callable[[slice], Callable[[slice], Taught]]:
    """Block of rows → part of it → the teacher's outputs."""
    if teacher is None:
        return lambda block: lambda part: None
    if isinstance(teacher, SparseLogits):
        every = teacher[index]
        return lambda block: every[block].__getitem__
    rows = _rows_of(teacher, index, wanted=False)

    def of_block(block: slice) -> Callable[[slice], Tensor]:
        products = rows.products(block)
        return lambda part: rows.finish(products[part])

    return of_block


def blocks(count: int, columns: int) -> Iterator[slice]:
    """Split `count` rows of `columns` logits into the minimum number of blocks, of equal size."""
    most = max(1, BLOCK_BYTES // (4 * columns))
    return _cut(0, count, max(1, -(-count // max(1, -(-count // most)))))


def _cut(begin: int, end: int, size: int) -> Iterator[slice]:
    return (slice(at, min(at + size, end)) for at in range(begin, end, size))


def log_probabilities(logits: Logits, index: Index, targets: Tensor) -> Tensor:
    """log p of each row's target, (N,), without gradient."""
    return -row_values([label_nats], index, logits, targets)[0][0]


def label_nats(logits: Tensor, _: Taught, labels: Tensor) -> Tensor:
    """−log p of each row's label, as a `RowFunction`."""
    return functional.cross_entropy(logits, labels, reduction="none")


def with_gradients(value: Tensor, gradients: Gradients) -> Tensor:
    """Attach precomputed gradients to a scalar; its backward pass can run once."""
    if not gradients:
        return value
    tensors, found = zip(*gradients, strict=True)
    return _Known.apply(value, list(found), *tensors)  # pyright: ignore


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "a second backward pass through the same loss"
        if float(given[0]) != 1.0:
            for gradient in gradients:  # in place, because a copy would be as large as the weight
                gradient.mul_(given[0])
        return given[0], None, *gradients


class _Rows:
    """Rows of logits in memory or on disk, and their gradient."""

    learns: bool
    gradients: Gradients

    def __init__(self, logits: Logits, index: Index, wanted: bool) -> None:
        self._logits, self._index = logits, index
        self.gradients = []
        if wanted and isinstance(logits, Tensor) and logits.requires_grad:
            self.gradients.append((logits, torch.zeros_like(logits)))
        self.learns = bool(self.gradients)

    def products(self, rows: slice) -> Tensor:
        """Products (n, V) before `finish`; may be overwritten."""
        return self._logits[self._places(rows)].detach()

    def finish(self, products: Tensor) -> Tensor:
        """The logits."""
        return products

    def learn(self, rows: slice, dz: Tensor) -> None:
        """Accumulate the gradient with respect to the products of these rows."""
        self.gradients[0][1][self._places(rows)] = dz

    def _places(self, rows: slice) -> Index:
        return tuple(axis[rows] for axis in self._index)


class _HeadRows(_Rows):
    """Rows computed by a head from hidden states."""

    def __init__(self, logits: HeadLogits, index: Index, wanted: bool) -> None:
        given, hidden = logits.head, logits.hidden[index]
        with torch.no_grad():
            self._head = given.to(logits.precision)
            self._hidden = hidden.detach().to(logits.precision)

        def gradient(tensor: Tensor | None) -> Tensor | None:
            if not wanted or tensor is None or not tensor.requires_grad:
                return None
            made = torch.empty_like(tensor) if len(index[0]) else torch.zeros_like(tensor)
            self.gradients.append((tensor, made))
            return made

        self.gradients = []
        self._d_hidden, self._d_weight, self._d_bias = map(
            gradient, (hidden, given.weight, given.bias)
        )
        self.learns = bool(self.gradients)
        self._buffer = hidden.new_empty(0)

    def products(self, rows: slice) -> Tensor:
        weight, bias = self._head.weight, self._head.bias
        hidden = self._hidden[rows]
        if len(self._buffer) < len(
            hidden
        ):  # allocated once, because new memory pages for each block are slow
            self._buffer = hidden.new_empty(len(hidden), len(weight))
        z = self._buffer[: len(hidden)]
        if bias is None:
            return torch.mm(hidden, weight.t(), out=z)
        return torch.addmm(bias, hidden, weight.t(), out=z)

    def finish(self, products: Tensor) -> Tensor:
        return self._head.finish(products)

    def learn(self, rows: slice, dz: Tensor) -> None:
        beta = 0 if rows.start == 0 else 1  # 0 starts a new sum and ignores the buffer's contents
        if self._d_hidden is not None:
            self._d_hidden[rows] = dz @ self._head.weight
        if self._d_weight is not None:
            hidden = self._hidden[rows]
            if self._d_weight.dtype == dz.dtype:
                self._d_weight.addmm_(dz.t(), hidden, beta=beta)
            else:  # accumulate products in bf16 as float32
                _add_(self._d_weight, dz.t() @ hidden, beta)
        if self._d_bias is not None:
            _add_(self._d_bias, dz.sum(dim=0, dtype=self._d_bias.dtype), beta)


def _add_(total: Tensor, more: Tensor, beta: int) -> None:
    total.copy_(more) if beta == 0 else total.add_(more)


def _rows_of(logits: Logits, index: Index, wanted: bool) -> _Rows:
    made = _HeadRows if isinstance(logits, HeadLogits) else _Rows
    return made(logits, index, wanted)  # pyright: ignore[reportArgumentType]


def _rows_at_once(z: Tensor) -> int:
    """Number of rows of a block that the functions process at once; at least one per thread."""
    if z.device.type != "cpu":
        return max(len(z), 1)
    return max(CACHED_VALUES // z.shape[-1], torch.get_num_threads())
