"""The streamed least squares is numpy's, and a chain multiplies out to the map it was made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attar.numerics.linear_fit import LinearFit, chain_of

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
"""Two float64 solvers on well-conditioned columns."""


def pairs(*, outputs: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(200, 7, generator=generator, dtype=torch.float64) + 2
    y = torch.randn(200, outputs, generator=generator, dtype=torch.float64)
    return x, y + x[:, :outputs].square()


def fit(x: torch.Tensor, y: torch.Tensor, pieces: int = 7) -> LinearFit:
    found = LinearFit()
    for a, b in zip(x.chunk(pieces), y.chunk(pieces), strict=True):
        found.add(a, b)
    return found


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_streamed_map_is_that_of_lstsq(ridge: float, has_bias: bool) -> None:
    x, y = pairs()
    weight, bias = fit(x, y).solve(ridge=ridge, has_bias=has_bias)
    a, b = (x - x.mean(0), y - y.mean(0)) if has_bias else (x, y)
    penalty = (ridge * float(a.square().sum()) / 7) ** 0.5
    rows = np.concatenate([a.numpy(), penalty * np.eye(7)])
    expected = np.linalg.lstsq(rows, np.concatenate([b.numpy(), np.zeros((7, 5))]), rcond=None)[0]
    torch.testing.assert_close(weight, torch.tensor(expected).t(), **TIGHT)
    if has_bias:
        assert bias is not None
        torch.testing.assert_close(bias, y.mean(0) - weight @ x.mean(0), **TIGHT)
    else:
        assert bias is None


def test_a_channel_that_never_varies_gets_no_weight() -> None:
    x, y = pairs()
    x[:, 2] = 4.0
    weight, _ = fit(x, y).solve(ridge=0.0, has_bias=True)
    assert torch.isfinite(weight).all()
    assert weight[:, 2].abs().max() < 1e-9


@pytest.mark.parametrize("inner", [[], [9], [6], [9, 9], [5, 8, 5]])
def test_a_chain_multiplies_out_to_its_map(inner: list[int]) -> None:
    weight = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = chain_of(weight, inner, torch.Generator().manual_seed(1))
    assert [len(each) for each in maps] == [*inner, 5]
    whole = maps[0]
    for each in maps[1:]:
        whole = each @ whole
    torch.testing.assert_close(whole, weight, **TIGHT)


def test_maps_of_a_chain_are_of_one_size() -> None:
    """So that the gradient of none of them vanishes."""
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes = [each.norm() for each in chain_of(weight, [12, 12], torch.Generator().manual_seed(1))]
    torch.testing.assert_close(sizes[0], sizes[1], **TIGHT)
    torch.testing.assert_close(sizes[0], sizes[2], **TIGHT)


def test_a_narrow_chain_keeps_the_largest_singular_values() -> None:
    weight = torch.diag(torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64))
    first, last = chain_of(weight, [2], torch.Generator().manual_seed(1))
    expected = torch.diag(torch.tensor([5.0, 3.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(last @ first, expected, **TIGHT)
