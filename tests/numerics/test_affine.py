"""Grids against torch's own kernels, and at their edges."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.numerics.affine import (
    choose_qparams,
    dequantize,
    fake_quantize,
    integer_range,
    quantize,
)

ENDS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
BITS = st.integers(2, 8)


@settings(max_examples=60, deadline=None)
@given(ends=st.tuples(ENDS, ENDS), bits=BITS, symmetric=st.booleans(), seed=st.integers(0, 99))
def test_fake_quantize_is_torchs_per_tensor_kernel_bit_for_bit(ends, bits, symmetric, seed):
    low, high = sorted(ends)
    grid = choose_qparams(torch.tensor(low), torch.tensor(high), bits, symmetric)
    spread = max(abs(low), abs(high), 1e-3)
    x = torch.randn(257, generator=torch.Generator().manual_seed(seed)) * spread
    theirs = torch.fake_quantize_per_tensor_affine(
        x, float(grid.scale), int(grid.zero_point), grid.quant_min, grid.quant_max
    )
    assert torch.equal(fake_quantize(x, grid), theirs)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_fake_quantize_is_torchs_per_channel_kernel_bit_for_bit(axis, symmetric):
    x = torch.randn(6, 6, 50, generator=torch.Generator().manual_seed(1))
    flat = x.movedim(axis, 0).flatten(1)
    grid = choose_qparams(flat.amin(1) * 0.9, flat.amax(1) * 0.9, 5, symmetric)
    theirs = torch.fake_quantize_per_channel_affine(
        x, grid.scale, grid.zero_point, axis, grid.quant_min, grid.quant_max
    )
    assert torch.equal(fake_quantize(x, grid, axis), theirs)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_value_halfway_between_two_points_falls_to_the_side_of_torchs_kernel(bits):
    """Divided by the scale instead of multiplied by its reciprocal, some would fall to the other.
    Other values hardly ever tell the two apart."""
    generator = torch.Generator().manual_seed(0)
    for high in (torch.rand(300, generator=generator) * 9 + 0.1).tolist():
        grid = choose_qparams(torch.tensor(0.0), torch.tensor(high), bits, symmetric=False)
        ties = (torch.arange(2**bits - 1) + 0.5) * grid.scale
        theirs = torch.fake_quantize_per_tensor_affine(
            ties, float(grid.scale), 0, grid.quant_min, grid.quant_max
        )
        assert torch.equal(fake_quantize(ties, grid), theirs)


def test_the_zero_point_is_the_nearest_of_the_scale_that_is_stored():
    """In exact fractions. The ends lie where −low/scale is a half but for the rounding of the scale
    to float32: a zero point of the unrounded scale would be the other neighbour."""
    for steps in range(20, 60):
        for width in (0.1, 0.3, 0.7, 1.9):
            low, high = -(steps + 0.5) * width, (254.5 - steps) * width
            ends = (torch.tensor(end, dtype=torch.float64) for end in (low, high))
            grid = choose_qparams(*ends, 8, symmetric=False)
            scale = Fraction(float(grid.scale))
            assert abs(int(grid.zero_point) * scale + Fraction(low)) <= scale / 2


@settings(max_examples=60, deadline=None)
@given(ends=st.tuples(ENDS, ENDS), bits=BITS, symmetric=st.booleans())
def test_zero_is_a_point_of_every_grid(ends, bits, symmetric):
    low, high = sorted(ends)
    grid = choose_qparams(torch.tensor(low), torch.tensor(high), bits, symmetric)
    assert fake_quantize(torch.tensor(0.0), grid) == 0.0
    assert grid.quant_min <= int(grid.zero_point) <= grid.quant_max


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-44])
def test_a_range_without_width_still_gives_a_grid(value, symmetric):
    grid = choose_qparams(torch.tensor(value), torch.tensor(value), 8, symmetric)
    assert math.isfinite(float(grid.scale))
    assert float(grid.scale) > 0
    assert fake_quantize(torch.tensor([0.0]), grid).item() == 0.0


def test_a_range_on_one_side_of_zero_is_stretched_to_zero():
    above = choose_qparams(torch.tensor(2.0), torch.tensor(6.0), 8, symmetric=False)
    below = choose_qparams(torch.tensor(-6.0), torch.tensor(-2.0), 8, symmetric=False)
    assert (int(above.zero_point), int(below.zero_point)) == (0, 255)
    assert float(above.scale) == float(below.scale) == pytest.approx(6 / 255)


def test_symmetric_grids_reach_equally_far_on_both_sides():
    for bits in range(2, 9):
        low, high = integer_range(bits, symmetric=True)
        assert low == -high
        assert high - low + 1 == 2**bits - 1


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_full_range_grid_has_every_integer_of_its_bits_and_the_same_scale(bits):
    low, high = integer_range(bits, symmetric=True, full_range=True)
    assert (low, high) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    ends = torch.tensor(-3.0), torch.tensor(2.0)
    full, even = (choose_qparams(*ends, bits, True, full_range=full) for full in (True, False))
    assert (full.quant_min, full.quant_max) == (low, high)
    assert float(full.scale) == float(even.scale) == pytest.approx(3 / high)


@pytest.mark.parametrize(
    ("low", "high"), [(math.nan, 1.0), (0.0, math.inf), (1.0, 0.5)], ids=["nan", "inf", "order"]
)
def test_a_range_that_cannot_be_is_refused(low, high):
    with pytest.raises(ValueError, match="finite ends with low <= high"):
        choose_qparams(torch.tensor(low), torch.tensor(high), 8, symmetric=False)


def test_fake_quantize_is_dequantize_after_quantize():
    x = torch.randn(8, 40, generator=torch.Generator().manual_seed(2))
    grid = choose_qparams(x.amin(1), x.amax(1), 4, symmetric=True)
    integers = quantize(x, grid, axis=0)
    assert integers.dtype == torch.int32
    assert integers.min() >= grid.quant_min
    assert integers.max() <= grid.quant_max
    assert torch.equal(dequantize(integers, grid, axis=0), fake_quantize(x, grid, axis=0))
