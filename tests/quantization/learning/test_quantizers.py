"""Grids that learn: published gradients, and forward passes equal to the grid that is stored."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from attar.models.simulated.qparams import SiteQParams
from attar.numerics.affine import QParams, choose_qparams, fake_quantize
from attar.numerics.agreement import sqnr_db
from attar.quantization.learning.quantizers import (
    FixedQuantizer,
    LsqPlusQuantizer,
    LsqQuantizer,
    PactQuantizer,
    SiteQuantizer,
    learned_fake_quantize,
    learning_quantizer,
)

KINDS = [LsqQuantizer, LsqPlusQuantizer, PactQuantizer, FixedQuantizer]
ROUNDING = 1e-5
"""Relative; sums of a few thousand float32 products in another order."""


def grid_for(low: float, high: float, bits: int = 4) -> SiteQParams:
    found = choose_qparams(torch.tensor(low), torch.tensor(high), bits, symmetric=False)
    return SiteQParams(
        fqn="norm",
        port="output",
        kind="ffn_norm",
        block=0,
        bits=bits,
        scale=float(found.scale),
        zero_point=int(found.zero_point),
        quant_min=found.quant_min,
        quant_max=found.quant_max,
    )


def tensors_of(grid: SiteQParams) -> QParams:
    scale, zero = torch.tensor(grid.scale), torch.tensor(grid.zero_point, dtype=torch.int32)
    return QParams(scale, zero, grid.quant_min, grid.quant_max)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def learned(quantizer: SiteQuantizer, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    quantizer(x).backward(gradient)
    return {n: p.grad for n, p in quantizer.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ends", [(-1.3, 2.1), (0.0, 2.1), (-0.17, 3.0)])
def test_the_forward_pass_is_the_stored_grid_bit_for_bit(kind, ends):
    quantizer = kind(grid_for(*ends))
    with torch.no_grad():  # somewhere on the way, no longer at a grid's own figures
        for parameter in quantizer.parameters():
            parameter.mul_(1.0371)
    x = 2 * noise(40, 50)
    stored = quantizer.grid()
    expected = fake_quantize(x, tensors_of(stored))
    assert torch.equal(quantizer(x), expected)
    assert stored.low <= 0 <= stored.high
    simulated = torch.fake_quantize_per_tensor_affine(
        x, stored.scale, stored.zero_point, stored.quant_min, stored.quant_max
    )
    assert torch.equal(quantizer(x), simulated)


@pytest.mark.parametrize("usual", KINDS)
def test_a_symmetric_grid_learns_its_step_alone_and_stays_symmetric(usual):
    start = grid_for(-1.3, 2.1).model_copy(update={"quant_min": -8, "quant_max": 7})
    start = start.model_copy(update={"zero_point": 0})
    quantizer = learning_quantizer(start, usual)
    x = 2 * noise(40, 50)
    assert torch.equal(quantizer(x), fake_quantize(x, tensors_of(start)))
    assert list(learned(quantizer, x, noise(40, 50, seed=1))) == ["step"]
    with torch.no_grad():
        quantizer.step.mul_(1.0371)
    assert quantizer.grid().is_symmetric
    assert isinstance(learning_quantizer(grid_for(-1.3, 2.1), usual), usual)


@pytest.mark.parametrize("kind", [LsqPlusQuantizer, PactQuantizer, FixedQuantizer])
@pytest.mark.parametrize("ends", [(-1.3, 2.1), (0.0, 1.0), (-0.17, 3.0), (-2.0, 0.0)])
def test_a_quantizer_starts_from_its_grid(kind, ends):
    start = grid_for(*ends, bits=8)
    assert kind(start).grid() == start


def straight_through(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """y = (⌊clamp(x/s + z)⌉ − z)·s in which rounding has slope 1: autograd does the rest."""
    clamped = (x / scale + zero).clamp(low, high)
    return (clamped + (clamped.round() - clamped).detach() - zero) * scale


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gradients_are_those_of_autograd_through_the_straight_through_definition(bits):
    x, gradient = 2 * noise(30, 40), noise(30, 40, seed=1)
    zero, largest = float(2**bits // 3), 2**bits - 1
    ours = [x.clone(), torch.tensor([3.0 / largest]), torch.tensor([zero])]
    theirs = [tensor.double() for tensor in ours]
    for tensor in [*ours, *theirs]:
        tensor.requires_grad_()
    learned_fake_quantize(*ours, 0, largest, 0.25).backward(gradient)
    straight_through(*theirs, 0, largest).backward(gradient.double())
    for mine, reference, factor in zip(ours, theirs, (1, 0.25, 0.25), strict=True):
        assert mine.grad is not None and reference.grad is not None
        expected = factor * reference.grad.float()
        torch.testing.assert_close(mine.grad, expected, rtol=ROUNDING, atol=1e-5)


def test_gradients_of_rows_are_those_of_autograd_through_the_straight_through_definition():
    w, gradient = noise(7, 50), noise(7, 50, seed=1)
    scale = 0.1 + torch.rand(7, generator=torch.Generator().manual_seed(2))
    ours = [w.clone().requires_grad_(), scale.clone().requires_grad_()]
    theirs = [tensor.detach().double().requires_grad_() for tensor in ours]
    learned_fake_quantize(ours[0], ours[1][:, None], torch.zeros(()), -2, 1).backward(gradient)
    straight_through(theirs[0], theirs[1][:, None], torch.zeros(()), -2, 1).backward(gradient)
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.grad is not None and reference.grad is not None
        torch.testing.assert_close(mine.grad, reference.grad.float(), rtol=ROUNDING, atol=1e-5)


def lsq_slope(v: Tensor, negative: int, largest: int) -> Tensor:
    """∂v̂/∂s by Esser et al. (2020), equation 3: x itself is compared, and not ⌊x/s⌉."""
    slope = torch.where(v <= -negative, -float(negative), v.round() - v)
    return torch.where(v >= largest, float(largest), slope)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("low", [-1.3, 0.0])
def test_the_step_of_lsq_has_the_published_gradient(bits, low):
    """Equation 3, times 1/√(values · Q_P); Q_P = 2^(bits−1) − 1 for values of two signs."""
    quantizer = LsqQuantizer(grid_for(low, 2.1, bits))
    x, gradient = 2 * noise(20, 30), noise(20, 30, seed=1)
    negative, largest = (2 ** (bits - 1), 2 ** (bits - 1) - 1) if low else (0, 2**bits - 1)
    slope = lsq_slope((x / quantizer.step.detach()).double(), negative, largest)
    expected = (slope * gradient).sum() / math.sqrt(x.numel() * largest)
    found = learned(quantizer, x, gradient)
    assert found.keys() == {"step"}
    torch.testing.assert_close(found["step"], expected.float(), rtol=ROUNDING, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_lsq_plus_has_the_published_gradients_of_step_and_offset(bits):
    """Bhalgat et al. (2020), equations 5 and 6: x̂ = ⌊clamp((x − β)/s, n, p)⌉·s + β."""
    start = grid_for(-1.3, 2.1, bits)
    quantizer = LsqPlusQuantizer(start)
    x, gradient = 2 * noise(20, 30), noise(20, 30, seed=1)
    largest = 2**bits - 1
    v = (x.double() - start.low) / start.scale
    damping = 1 / math.sqrt(x.numel() * largest)
    outside = (v <= 0) | (v >= largest)
    expected = {"step": lsq_slope(v, 0, largest), "low": outside.double()}
    found = learned(quantizer, x, gradient)
    for name, slope in expected.items():
        total = (slope * gradient).sum() * damping
        torch.testing.assert_close(found[name], total.float(), rtol=10 * ROUNDING, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_value_beyond_the_clipping_value_moves_it_at_any_width(bits):
    """Choi et al. (2018), equation 3: ∂y/∂α = 1 for x ≥ α, whatever the step of the grid."""
    x = 2 * noise(200_000)
    found = learned(PactQuantizer(grid_for(0.0, 3.0, bits)), x, torch.ones_like(x))
    assert int(found["high"]) == int((x >= 3).sum())


@pytest.mark.parametrize("kind", [LsqQuantizer, LsqPlusQuantizer])
def test_values_at_the_low_end_of_a_grid_move_nothing(kind):
    """Masked probabilities are exactly 0, the low end: padding must not teach the range."""
    found = learned(kind(grid_for(0.0, 1.0)), torch.zeros(9), torch.ones(9))
    assert all(float(slope) == 0 for slope in found.values())


def test_values_at_a_clipping_value_move_nothing():
    quantizer = PactQuantizer(grid_for(-1.0, 1.0))
    x = torch.stack([quantizer.low.detach(), quantizer.high.detach()])
    assert {n: float(g) for n, g in learned(quantizer, x, torch.ones(2)).items()} == {
        "low": 0.0,
        "high": 0.0,
    }


def test_pact_moves_each_clipping_value_by_what_lies_beyond_it():
    quantizer = PactQuantizer(grid_for(-1.5, 1.5, bits=8))
    x = torch.tensor([-3.0, -2.0, 0.4, 5.0], requires_grad=True)
    gradient = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    found = learned(quantizer, x, gradient)
    assert {n: float(g) for n, g in found.items()} == {"low": 11.0, "high": 1000.0}
    assert x.grad is not None and x.grad.tolist() == [0, 0, 100, 0]


def test_pact_learns_no_lower_end_for_values_of_one_sign():
    found = learned(PactQuantizer(grid_for(0.0, 1.5)), noise(9), torch.ones(9))
    assert found.keys() == {"high"}


def test_lsq_is_symmetric_where_values_have_two_signs():
    for low, zero_point in ((-1.0, 8), (0.0, 0)):
        start = grid_for(low, 2.1)
        found = LsqQuantizer(start).grid()
        assert found.zero_point == zero_point
        assert found.high == pytest.approx(start.high)


@pytest.mark.parametrize("kind", [LsqQuantizer, LsqPlusQuantizer, PactQuantizer])
def test_a_parameter_at_zero_is_still_a_grid(kind):
    quantizer = kind(grid_for(-1.3, 2.1))
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.zero_()
    assert quantizer.grid().scale > 0
    assert bool(quantizer(noise(50)).isfinite().all())


@pytest.mark.parametrize("kind", [LsqQuantizer, LsqPlusQuantizer])
def test_a_step_that_crosses_zero_counts_by_its_size_and_can_come_back(kind):
    """Its absolute value is the grid's; its gradient points away from zero as before."""
    x, gradient = noise(50), noise(50, seed=1)
    found = []
    for sign in (1, -1):
        quantizer = kind(grid_for(-1.3, 2.1))
        with torch.no_grad():
            quantizer.step.mul_(sign)
        found.append((quantizer.grid(), float(learned(quantizer, x, gradient)["step"])))
    (grid, slope), (crossed, other) = found
    assert crossed == grid
    assert other == pytest.approx(-slope) and slope != 0


def test_pact_ends_that_cross_zero_become_zero():
    quantizer = PactQuantizer(grid_for(-1.3, 2.1))
    with torch.no_grad():
        quantizer.low.neg_()
    assert (quantizer.grid().low, quantizer.grid().zero_point) == (0, 0)
    with torch.no_grad():
        quantizer.high.neg_()
    assert bool(quantizer(noise(50)).isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_more_bits_give_more_sqnr(kind):
    x = noise(64, 64)
    low, high = float(x.min()), float(x.max())
    found = [sqnr_db(x, kind(grid_for(low, high, bits))(x).detach()) for bits in range(2, 9)]
    assert found == sorted(found)
    assert all(more - less > 3 for less, more in pairwise(found))


def test_a_fixed_quantizer_learns_nothing_and_passes_gradients_on():
    quantizer, x = FixedQuantizer(grid_for(-1.0, 1.0)), torch.tensor([0.3, 5.0], requires_grad=True)
    assert not learned(quantizer, x, torch.ones(2))
    assert x.grad is not None and x.grad.tolist() == [1, 0]
