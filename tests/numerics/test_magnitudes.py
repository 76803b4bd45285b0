"""Counts in fixed bins: none is lost, and halves add up."""

from __future__ import annotations

import pytest
import torch

from attar.numerics.magnitudes import BINS, Magnitudes

WIDTH = 2 ** (1 / 32)
"""Of a bin."""


def drawn() -> torch.Tensor:
    return torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 3


def seen(*pieces: torch.Tensor) -> Magnitudes:
    found = Magnitudes()
    for piece in pieces:
        found.see(piece)
    return found


def test_every_value_is_counted_once_whatever_its_size() -> None:
    odd = torch.tensor([0.0, -0.0, 1e-30, 3e38, -3e38, 65504.0, 1e5])
    found = seen(drawn(), odd, torch.zeros(0))
    assert found.total == 5000 + len(odd)
    assert sum(found.coarse(4).values()) == found.total
    assert found.largest == pytest.approx(3e38)
    assert seen(odd).coarse(1) == {-64: 3, 15: 1, 16: 1, 63: 2}


def test_pieces_are_the_whole() -> None:
    pieces, whole = seen(*drawn().split([1234, 3766])), seen(drawn())
    assert pieces.counts.tolist() == whole.counts.tolist()
    assert pieces.largest == whole.largest


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_quantile_is_known_to_the_width_of_a_bin(share: float) -> None:
    expected = float(drawn().abs().quantile(share))
    assert expected / WIDTH <= seen(drawn()).quantile(share) <= expected * WIDTH


def test_of_zeros_and_of_nothing_the_median_is_zero() -> None:
    assert seen(torch.zeros(10)).median == 0
    assert Magnitudes().median == 0
    assert len(Magnitudes().counts) == BINS


def test_a_wide_bin_holds_its_magnitudes() -> None:
    assert seen(torch.tensor([1.0, 1.9, 2.0, -5.0])).coarse(1) == {0: 2, 1: 1, 2: 1}
