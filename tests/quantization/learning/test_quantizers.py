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
)

KINDS = [LsqQuantizer, LsqPlusQuantizer, PactQuantizer, FixedQuantizer]
ROUNDING = 1e-4
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


@pytest.mark.parametrize("kind", [LsqPlusQuantizer, PactQuantizer, FixedQuantizer])
@pytest.mark.parametrize("ends", [(-1.3, 2.1), (0.0, 1.0), (-0.17, 3.0), (-2.0, 0.0)])
def test_a_quantizer_starts_from_its_grid(kind, ends):
    start = grid_for(*ends, bits=8)
    assert kind(start).grid() == start


def test_gradients_are_those_of_torchs_learnable_fake_quantization():
    for seed in range(3):
        x, gradient = 2 * noise(30, 40, seed=seed), noise(30, 40, seed=seed + 100)
        ours, theirs = [[x.clone(), torch.tensor([0.21]), torch.tensor([6.0])] for _ in range(2)]
        for tensor in [*ours, *theirs]:
            tensor.requires_grad_()
        learned_fake_quantize(*ours, 0, 15, 0.25).backward(gradient)
        torch._fake_quantize_learnable_per_tensor_affine(*theirs, 0, 15, 0.25).backward(gradient)
        for mine, torchs in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.grad, torchs.grad, rtol=ROUNDING, atol=1e-5)


def test_gradients_of_rows_are_those_of_torchs_learnable_fake_quantization():
    w, gradient = noise(7, 50), noise(7, 50, seed=1)
    scale = 0.1 + torch.rand(7, generator=torch.Generator().manual_seed(2))
    ours, theirs = [[w.clone().requires_grad_(), scale.clone().requires_grad_()] for _ in range(2)]
    learned_fake_quantize(ours[0], ours[1][:, None], torch.zeros(()), -7, 7).backward(gradient)
    torch._fake_quantize_learnable_per_channel_affine(
        *theirs, torch.zeros(7), 0, -7, 7, 1.0
    ).backward(gradient)
    for mine, torchs in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, torchs.grad, rtol=ROUNDING, atol=1e-5)


def test_the_step_of_lsq_has_the_published_gradient():
    """⌊x/s⌉ − x/s inside, the ends −Q_N and Q_P outside, divided by √(values · quant_max)."""
    quantizer = LsqQuantizer(grid_for(-1.3, 2.1))
    x, gradient = 4 * noise(20, 30), noise(20, 30, seed=1)
    v = x / quantizer.step.detach()
    inside = (v.round() >= -8) & (v.round() <= 7)
    slope = torch.where(inside, v.round() - v, v.clamp(-8, 7).round())
    expected = (slope * gradient).sum() / math.sqrt(x.numel() * 15)
    found = learned(quantizer, x, gradient)
    assert found.keys() == {"step"}
    torch.testing.assert_close(found["step"], expected, rtol=ROUNDING, atol=0)


def test_lsq_plus_has_the_published_gradients_of_step_and_offset():
    """Bhalgat et al. (2020), equations 5 and 6: x̂ = ⌊clamp((x − β)/s, n, p)⌉·s + β."""
    start = grid_for(-1.3, 2.1)
    quantizer = LsqPlusQuantizer(start)
    x, gradient = 4 * noise(20, 30), noise(20, 30, seed=1)
    v = (x - start.low) / start.scale
    inside = (v.round() >= 0) & (v.round() <= 15)
    damping = 1 / math.sqrt(x.numel() * 15)
    of_step = torch.where(inside, v.round() - v, v.clamp(0, 15).round())
    found = learned(quantizer, x, gradient)
    expected = {"step": of_step, "low": (~inside).float()}
    for name, slope in expected.items():
        total = (slope * gradient).sum() * damping
        torch.testing.assert_close(found[name], total, rtol=10 * ROUNDING, atol=1e-6)


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
def test_a_step_pushed_below_zero_is_still_a_grid(kind):
    quantizer = kind(grid_for(-1.3, 2.1))
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.mul_(-0.01)
    assert quantizer.grid().scale > 0
    assert bool(quantizer(noise(50)).isfinite().all())
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.zero_()
    assert quantizer.grid().scale > 0
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
