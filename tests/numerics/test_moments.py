"""Moments of a stream are those of the whole, in any cutting."""

from __future__ import annotations

import pytest
import torch

from attar.numerics.moments import Moments


def values(count: int = 60, columns: int = 4) -> torch.Tensor:
    """Columns far from zero, of different spread, the last one skewed."""
    drawn = torch.randn(count, columns, generator=torch.Generator().manual_seed(0)).double()
    drawn[:, -1] = drawn[:, -1].exp()
    return drawn * torch.arange(1, columns + 1) + 1000


def kurtosis(x: torch.Tensor) -> torch.Tensor:
    """As a textbook writes it."""
    off = x - x.mean(dim=0)
    return off.pow(4).mean(dim=0) / off.square().mean(dim=0).square()


@pytest.mark.parametrize("pieces", [[60], [1, 59], [0, 20, 20, 20], [1] * 60])
def test_moments_of_a_stream_are_those_of_the_whole(pieces: list[int]) -> None:
    seen = Moments()
    for piece in values().split(pieces):
        seen = seen.merged(Moments.of(piece))
    assert seen.count == 60
    whole = values()
    torch.testing.assert_close(seen.mean, whole.mean(dim=0), rtol=1e-12, atol=0)
    torch.testing.assert_close(seen.std, whole.std(dim=0, correction=0), rtol=1e-9, atol=0)
    torch.testing.assert_close(seen.kurtosis, kurtosis(whole), rtol=1e-8, atol=0)


def test_two_halves_merged_one_way_or_the_other_are_the_whole() -> None:
    first, second = (Moments.of(piece) for piece in values().split([13, 47]))
    whole = Moments.of(values())
    for merged in (first.merged(second), second.merged(first)):
        for name in ("mean", "m2", "m3", "m4"):
            torch.testing.assert_close(
                getattr(merged, name), getattr(whole, name), rtol=1e-10, atol=1e-10
            )


def test_pooled_columns_are_one_stream_of_numbers() -> None:
    pooled, flat = Moments.of(values()).pooled(), Moments.of(values().reshape(-1, 1))
    assert pooled.count == flat.count
    assert float(pooled.kurtosis) == pytest.approx(float(flat.kurtosis), rel=1e-9)
    assert float(pooled.m3) == pytest.approx(float(flat.m3), rel=1e-7)


def test_a_constant_has_no_spread_and_no_kurtosis() -> None:
    seen = Moments.of(torch.full((8, 2), 5.0))
    assert seen.std.tolist() == [0, 0]
    assert seen.kurtosis.tolist() == [0, 0]


def test_kurtosis_of_a_normal_distribution_is_three() -> None:
    drawn = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(1))
    assert float(Moments.of(drawn).kurtosis) == pytest.approx(3.0, abs=0.05)
