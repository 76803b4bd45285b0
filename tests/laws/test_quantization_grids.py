"""Laws of every grid: near, idempotent, better with more bits, and as good as theory says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.numerics.affine import QParams, choose_qparams, fake_quantize, per_channel_range
from attar.numerics.agreement import sqnr_db

ROUNDING = 1e-5
"""Relative slack for float32 arithmetic of the grid itself."""


def some_values(seed: int, outlier: float) -> torch.Tensor:
    x = torch.randn(16, 32, generator=torch.Generator().manual_seed(seed))
    x[0, 0] = outlier
    return x


def grid_of(x: torch.Tensor, bits: int, symmetric: bool) -> QParams:
    return choose_qparams(*x.aminmax(), bits, symmetric)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1000),
    outlier=st.floats(-100, 100),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
)
def test_values_in_range_move_by_at_most_half_a_scale(seed, outlier, bits, symmetric):
    x = some_values(seed, outlier)
    grid = grid_of(x, bits, symmetric)
    slack = ROUNDING * float(x.abs().max())
    # the zero point is rounded, so the ends of an asymmetric range may lie half a scale outside
    reach = 0.5 if symmetric else 1.0
    error = (fake_quantize(x, grid) - x).abs()
    assert float(error.max()) <= reach * float(grid.scale) + slack
    low = (grid.quant_min - int(grid.zero_point)) * float(grid.scale)
    high = (grid.quant_max - int(grid.zero_point)) * float(grid.scale)
    inside = (x >= low) & (x <= high)
    assert float(error[inside].max()) <= 0.5 * float(grid.scale) + slack


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1000),
    outlier=st.floats(-100, 100),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
)
def test_quantizing_twice_is_quantizing_once(seed, outlier, bits, symmetric):
    x = some_values(seed, outlier)
    grid = grid_of(x, bits, symmetric)
    once = fake_quantize(x, grid)
    assert torch.equal(fake_quantize(once, grid), once)
    assert len(once.unique()) <= grid.quant_max - grid.quant_min + 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), outlier=st.floats(-20, 20), symmetric=st.booleans())
def test_two_bits_more_are_a_better_signal(seed, outlier, symmetric):
    x = some_values(seed, outlier)
    found = [sqnr_db(x, fake_quantize(x, grid_of(x, b, symmetric))) for b in (2, 4, 6, 8)]
    assert found == sorted(found)
    assert found[-1] - found[0] > 20


@pytest.mark.parametrize(("bits", "expected_db"), [(8, 43.1), (6, 30.9), (4, 18.0)])
def test_round_to_nearest_on_normal_numbers_gives_the_yardstick(bits, expected_db):
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    grid = choose_qparams(*per_channel_range(x), bits, symmetric=True)
    assert sqnr_db(x, fake_quantize(x, grid, axis=0)) == pytest.approx(expected_db, abs=0.15)


def test_a_grid_for_each_channel_is_never_coarser_than_one_for_all():
    x = some_values(0, outlier=50.0)
    fine = choose_qparams(*per_channel_range(x), 8, symmetric=True)
    coarse = grid_of(x, 8, symmetric=True)
    assert bool((fine.scale <= coarse.scale).all())
    assert sqnr_db(x, fake_quantize(x, fine, 0)) > sqnr_db(x, fake_quantize(x, coarse)) + 10
