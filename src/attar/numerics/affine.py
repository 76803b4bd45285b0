"""Affine quantization: real numbers on a grid of 2^bits evenly spaced points.

A grid is defined by a `scale` (the distance of neighbouring points) and a `zero_point` (the integer
that represents 0 exactly). Each value is rounded to the nearest point.

    quantize     q = clamp(round(x / scale) + zero_point, quant_min, quant_max)
    dequantize   x̂ = (q − zero_point) · scale
    fake_quantize = dequantize ∘ quantize: a float result with the error of quantization

*Symmetric* grids have zero_point 0 and the integers −(2^(bits−1)−1) … 2^(bits−1)−1. They are used
for weights, because a zero point costs an additional sum at run time.
*Full-range* symmetric grids also use the integer −2^(bits−1). The range reaches one step further
below zero, which matters at 2 bits: four points instead of three.
*Asymmetric* grids have unsigned integers 0 … 2^bits−1 that cover the range of the values. They are
used for activations. Zero is a point of every grid, so that padding, ReLU's zeros and masked
probabilities stay exact.

Left out: floating-point grids, and scales per group of inputs (not supported by our runtimes).
Shape letters: `C` channels along the axis with per-channel scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_SCALE = 2.0**-100
"""Minimum scale, so that its reciprocal is finite in float32 (largest 2^127).
"""


@dataclass(frozen=True)
class QParams:
    """A grid. `scale` and `zero_point` are float32 and int32 tensors of shape (), or (C,) for
    per-channel grids.
    """

    scale: Tensor
    zero_point: Tensor
    quant_min: int
    quant_max: int


def integer_range(bits: int, symmetric: bool, full_range: bool = False) -> tuple[int, int]:
    """The integers of a grid: (quant_min, quant_max).

    Args:
        full_range: symmetric grids only: include the integer −2^(bits−1).

    Example:
        >>> integer_range(8, symmetric=True), integer_range(8, symmetric=False)
        ((-127, 127), (0, 255))
        >>> integer_range(2, symmetric=True, full_range=True)
        (-2, 1)
    """
    if symmetric:
        largest = 2 ** (bits - 1) - 1
        return -largest - full_range, largest
    return 0, 2**bits - 1


def choose_qparams(
    low: Tensor, high: Tensor, bits: int, symmetric: bool, full_range: bool = False
) -> QParams:
    """The finest grid that covers `low` to `high` and zero.

        symmetric   scale = max(|low|, |high|) / quant_max
        asymmetric  scale = (high − low) / (2^bits − 1),  zero_point = round(−low / scale)

    Args:
        low, high: ends of the range, shape () or (C,). An end on the wrong side of zero is set to
            zero.
        bits: 2 to 8.
        full_range: symmetric grids only: one more integer below zero, with the same scale.
    Returns: a grid of float32 scales. A range of no width gets scale 1, which represents its only
        value, 0, exactly.
    Raises:
        ValueError: an end is NaN or infinite, or `low` lies above `high`.
    """
    low, high = low.detach().to(torch.float64), high.detach().to(torch.float64)
    if not bool((torch.isfinite(low) & torch.isfinite(high) & (low <= high)).all()):
        raise ValueError(f"a range needs finite ends with low <= high, got low {low}, high {high}")
    quant_min, quant_max = integer_range(bits, symmetric, full_range)
    low, high = low.clamp(max=0), high.clamp(min=0)
    if symmetric:
        scale = torch.maximum(-low, high) / quant_max
    else:
        scale = (high - low) / (quant_max - quant_min)
    # rounded to float32 first, so that the zero point matches the stored scale
    scale = torch.where(scale < SMALLEST_SCALE, 1.0, scale).to(torch.float32)
    if symmetric:
        zero_point = torch.zeros_like(scale)
    else:
        zero_point = torch.round(quant_min - low / scale.to(torch.float64))
    zero_point = zero_point.clamp(quant_min, quant_max).to(torch.int32)
    return QParams(scale, zero_point, quant_min, quant_max)


def _along(values: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Reshape values (C,) to broadcast along `axis` of `x`."""
    if axis is None:
        return values
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.view(shape)


def _on_grid(x: Tensor, qparams: QParams, axis: int | None) -> Tensor:
    """The integer of each value, in the float dtype of `x`."""
    # multiplied by the reciprocal, as in torch's kernels, so that ties round to the same side
    inverse = _along(qparams.scale, x, axis).reciprocal()
    shifted = torch.round(x * inverse) + _along(qparams.zero_point, x, axis)
    return shifted.clamp(qparams.quant_min, qparams.quant_max)


def quantize(x: Tensor, qparams: QParams, axis: int | None = None) -> Tensor:
    """The nearest grid point of each value, as its integer.

    Args:
        axis: dimension of per-channel scales; None: one scale for all.
    Returns: int32 in quant_min … quant_max, of x's shape.
    """
    return _on_grid(x, qparams, axis).to(torch.int32)


def dequantize(q: Tensor, qparams: QParams, axis: int | None = None) -> Tensor:
    """Convert integers to float32 values, (q − zero_point) · scale."""
    return (q - _along(qparams.zero_point, q, axis)) * _along(qparams.scale, q, axis)


def fake_quantize(x: Tensor, qparams: QParams, axis: int | None = None) -> Tensor:
    """Round each value to the nearest grid point: dequantize(quantize(x)).

    Equal, bit for bit, to `torch.fake_quantize_per_tensor_affine` and `…_per_channel_affine` in
    float32. It has no useful gradient; trainable layers define their own.

    Example:
        >>> grid = choose_qparams(torch.tensor(-1.0), torch.tensor(2.0), bits=2, symmetric=False)
        >>> fake_quantize(torch.tensor([-5.0, 0.0, 0.6, 9.0]), grid).tolist()
        [-1.0, 0.0, 1.0, 2.0]
    """
    on_grid = _on_grid(x, qparams, axis) - _along(qparams.zero_point, x, axis)
    return on_grid * _along(qparams.scale, x, axis)


def per_channel_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """(minimum, maximum) for each index along the first axis, each of shape (C,).

    For a Linear weight (O, I) these are output channels, for an embedding table (V, D) its rows.
    Per-channel scales of weights are applied once per output and so cost nothing; scales per
    input channel would vary along the summed axis.

    Raises:
        ValueError: `x` is empty.
    """
    if x.numel() == 0:
        raise ValueError(f"a range needs at least one value, got shape {tuple(x.shape)}")
    low, high = x.flatten(1).aminmax(dim=1)
    return low, high
