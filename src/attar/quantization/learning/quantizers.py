"""Learned quantization grids: fake-quantization with gradients for the grid's parameters.

In the backward pass, rounding is treated as the identity (straight-through estimator), and a value
clipped to an end of the grid passes its gradient to that end. The learned parameters are

    LSQ     the step s;                      y = ⌊clamp(x/s + z)⌉·s − z·s
            ∂y/∂x = 1 inside, 0 outside      ∂y/∂s = ⌊x/s⌉ − x/s inside, quant_end − z outside
    LSQ+    s and the grid's low end o, z = ⌊−o/s⌉;   ∂y/∂o = 0 inside, 1 outside
    PACT    the clipping values (low, high); ∂y/∂high = 1 above, ∂y/∂low = 1 below, 0 elsewhere

Whether x is *inside* is decided before rounding, as in the papers (torch's learnable fake-quantize
decides after rounding, which at 2 bits misses four of ten clipped values). A value exactly at an
end counts as inside, although the papers' strict inequality would count it as outside: otherwise
the zeros of masked probabilities, which lie at the low end, would contribute to its gradient.

The gradients of LSQ and LSQ+ are divided by √(values · largest integer), which scales them to the
size of a weight's gradient. The forward pass is bit for bit `numerics.affine.fake_quantize` with
the grid that is finally stored, including the rounded zero point.

*Steps stay positive*: the step is the parameter's absolute value, at least SMALLEST_SCALE.
*Zero stays on the grid*: an end on the wrong side of zero is moved to zero.

Left out: learned bit widths, and per-token steps.
Source: Esser et al., "Learned Step Size Quantization" (2020), section 2; Bhalgat et al., "LSQ+"
(2020), section 3; Choi et al., "PACT" (2018), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attar.models.simulated.qparams import SiteQParams
from attar.numerics.affine import SMALLEST_SCALE, choose_qparams, fake_quantize, integer_range


class _LearnedGrid(torch.autograd.Function):
    """Fake-quantization with gradients for step and zero point. Only `x` is saved for the backward
    pass, because rounding it again is cheaper than storing the result.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        quant_min: int,
        quant_max: int,
        gradient_scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.quant_min, ctx.quant_max, ctx.gradient_scale = quant_min, quant_max, gradient_scale
        on_grid = torch.round(x * scale.reciprocal()).add_(zero_point)
        return on_grid.clamp_(quant_min, quant_max).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, scale, zero_point = ctx.saved_tensors
        of_step, of_zero = ctx.needs_input_grad[1:3]
        steps = x * scale.reciprocal()
        clamped = steps.clamp(ctx.quant_min - zero_point, ctx.quant_max - zero_point)
        is_inside = clamped == steps
        to_x = torch.where(is_inside, gradient, 0)
        to_scale = to_zero = None
        if of_step:
            slope = clamped.round_().sub_(torch.where(is_inside, steps, 0))
            to_scale = (gradient * slope).sum_to_size(scale.shape) * ctx.gradient_scale
        if of_zero:
            outside = (gradient - to_x).sum_to_size(zero_point.shape)
            to_zero = -outside * scale * ctx.gradient_scale
        return to_x, to_scale, to_zero, None, None, None


def learned_fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    gradient_scale: float = 1.0,
) -> Tensor:
    """`fake_quantize` with the gradients of LSQ for `x`, `scale` and `zero_point`.

    Args:
        scale, zero_point: broadcastable to `x`; zero points are integers.
        gradient_scale: factor on the gradients of scale and zero point.
    Returns: values on the grid, with the shape of `x`.
    """
    return _LearnedGrid.apply(x, scale, zero_point, quant_min, quant_max, gradient_scale)  # pyright: ignore[reportReturnType]


class _Clipping(torch.autograd.Function):
    """Fake-quantization whose gradient is that of clipping to (low, high)."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, low: Tensor, high: Tensor, bits: int
    ) -> Tensor:
        ctx.save_for_backward(x, low, high)
        return fake_quantize(x, choose_qparams(low, high, bits, symmetric=False))

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, low, high = ctx.saved_tensors
        above, below = x > high, x < low
        to_x = torch.where(above | below, 0, gradient)
        return to_x, (gradient * below).sum(), (gradient * above).sum(), None


def lsq_gradient_scale(num_values: int, largest: int) -> float:
    """Factor 1/√(values · largest) on the gradient of a step.

    Args:
        num_values: number of values that share the step.
        largest: the paper's Q_P, the largest integer minus the zero point.
    """
    return 1.0 / math.sqrt(num_values * largest)


def positive(step: Tensor) -> Tensor:
    """The effective step: the parameter's absolute value, at least SMALLEST_SCALE."""
    return step.abs().clamp(min=SMALLEST_SCALE)


class _RoundThrough(torch.autograd.Function):
    """Rounding with a straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient


class SiteQuantizer(nn.Module):
    """Base class of learned quantizers of a site; `grid()` returns the grid to store."""

    def __init__(self, start: SiteQParams) -> None:
        super().__init__()
        self.start = start
        self.quant_min, self.quant_max = start.quant_min, start.quant_max
        self.largest = start.quant_max

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        """The step and the rounded zero point, shape ()."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        damping = lsq_gradient_scale(x.numel(), self.largest)
        scale, zero = self.scale_and_zero()
        return learned_fake_quantize(x, scale, zero, self.quant_min, self.quant_max, damping)

    @torch.no_grad()
    def grid(self) -> SiteQParams:
        """The initial grid with its values replaced by the learned ones."""
        scale, zero_point = self.scale_and_zero()
        figures = {
            "scale": float(scale),
            "zero_point": int(zero_point),
            "quant_min": self.quant_min,
            "quant_max": self.quant_max,
        }
        return SiteQParams(**{**self.start.model_dump(), **figures})


class LsqQuantizer(SiteQuantizer):
    """LSQ: learns the step. The zero point is fixed: 0 for values of one sign, otherwise the middle
    of the integers.

    Signed values use the integers 0 … 2^bits − 1 with zero point 2^(bits−1), which is the paper's
    −2^(bits−1) … 2^(bits−1)−1, shifted; Q_P is 2^(bits−1)−1.
    """

    def __init__(self, start: SiteQParams) -> None:
        super().__init__(start)
        is_one_sided = start.zero_point == start.quant_min
        middle = (start.quant_min + start.quant_max + 1) // 2
        zero = start.quant_min if is_one_sided else middle
        self.largest = self.quant_max - zero
        farthest = start.high if is_one_sided else max(start.high, -start.low)
        step = start.scale if start.is_symmetric else farthest / self.largest
        self.step = nn.Parameter(torch.tensor(max(step, SMALLEST_SCALE), dtype=torch.float32))
        self.zero_point: Tensor
        self.register_buffer("zero_point", torch.tensor(float(zero)))

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        return positive(self.step), self.zero_point


class LsqPlusQuantizer(SiteQuantizer):
    """LSQ+: learns the step and the low end of the grid, which determine the zero point."""

    def __init__(self, start: SiteQParams) -> None:
        super().__init__(start)
        self.step = nn.Parameter(torch.tensor(start.scale, dtype=torch.float32))
        self.low = nn.Parameter(torch.tensor(start.low, dtype=torch.float32))

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        scale = positive(self.step)
        zero = _RoundThrough.apply(self.quant_min - self.low / scale)
        return scale, zero.clamp(self.quant_min, self.quant_max)  # pyright: ignore[reportAttributeAccessIssue]


class PactQuantizer(SiteQuantizer):
    """PACT: learns the clipping value, or both clipping values where values have both signs."""

    def __init__(self, start: SiteQParams) -> None:
        super().__init__(start)
        if (start.quant_min, start.quant_max) != integer_range(start.bits, symmetric=False):
            raise ValueError(
                f"{start.name}: integers {start.quant_min} … {start.quant_max} are not those of an "
                f"asymmetric grid of {start.bits} bits"
            )
        has_two_signs = start.zero_point != start.quant_min
        self.low = nn.Parameter(torch.tensor(start.low), requires_grad=has_two_signs)
        self.high = nn.Parameter(torch.tensor(start.high))

    def clipping(self) -> tuple[Tensor, Tensor]:
        """The clipping values (low ≤ 0 ≤ high)."""
        return self.low.clamp(max=0), self.high.clamp(min=0)

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        grid = choose_qparams(*self.clipping(), self.start.bits, symmetric=False)
        return grid.scale, grid.zero_point

    def forward(self, x: Tensor) -> Tensor:
        return _Clipping.apply(x, *self.clipping(), self.start.bits)  # pyright: ignore[reportReturnType]


class FixedQuantizer(SiteQuantizer):
    """A fixed grid; gradients pass only for values inside the grid."""

    def __init__(self, start: SiteQParams) -> None:
        super().__init__(start)
        self.scale: Tensor
        self.zero_point: Tensor
        self.register_buffer("scale", torch.tensor(start.scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(float(start.zero_point)))

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.zero_point


MakeQuantizer = Callable[[SiteQParams], SiteQuantizer]


def learning_quantizer(start: SiteQParams, usual: MakeQuantizer) -> SiteQuantizer:
    """The method's quantizer, or LSQ where the grid must stay symmetric."""
    is_signed = start.quant_min < 0 and start.is_symmetric
    return LsqQuantizer(start) if is_signed else usual(start)
