"""Two integers a byte, and what they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attar.export.four_bit import OpenVinoEmbedding, OpenVinoLinear, fits, nibbles


def test_the_earlier_of_two_integers_is_the_lower_half_and_zero_is_eight() -> None:
    packed = nibbles(torch.tensor([[-8, 7, 0, 1], [1, -1, 3, -3]], dtype=torch.int8))
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [[0 | 15 << 4, 8 | 9 << 4], [9 | 7 << 4, 11 | 5 << 4]]


@pytest.mark.parametrize(
    ("values", "multiple_of", "wanted"),
    [
        ([[-8, 7]], 2, True),
        ([[-8, 8]], 2, False),
        ([[-9, 7]], 2, False),
        ([[1, 2, 3]], 2, False),
        ([[1, 2, 3, 4]], 8, False),
    ],
)
def test_kernels_take_four_bits_in_rows_that_end_on_a_byte(
    values: list[list[int]], multiple_of: int, wanted: bool
) -> None:
    assert fits(torch.tensor(values), multiple_of) == wanted


def test_modules_for_openvino_compute_with_integers_times_scales() -> None:
    random = torch.Generator().manual_seed(0)
    integers = torch.randint(-8, 8, (6, 10), generator=random).to(torch.int8)
    scale = torch.rand(6, generator=random) + 0.1
    weight = integers * scale[:, None]
    linear = nn.Linear(10, 6)
    x, ids = torch.randn(3, 10, generator=random), torch.tensor([[0, 5], [2, 2]])
    with torch.no_grad():
        found = OpenVinoLinear(linear, integers, scale)(x)
        torch.testing.assert_close(found, nn.functional.linear(x, weight, linear.bias))
        assert torch.equal(OpenVinoEmbedding(integers, scale)(ids), weight[ids])
