"""Decibels and cosines where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from attar.numerics.agreement import SqnrSum, cosine, sqnr_db


def test_an_error_a_tenth_of_the_signal_is_twenty_decibels():
    x = torch.tensor([3.0, 4.0])
    assert sqnr_db(x, x * 1.1) == pytest.approx(20, abs=1e-4)


def test_sqnr_does_not_depend_on_the_scale():
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    y = x + 0.01
    assert sqnr_db(x * 4096, y * 4096) == pytest.approx(sqnr_db(x, y), abs=1e-9)


def test_no_error_is_infinite_and_a_wrong_answer_to_silence_minus_infinite():
    x = torch.ones(3)
    assert sqnr_db(x, x) == math.inf
    assert sqnr_db(torch.zeros(3), x) == -math.inf


def test_sqnr_of_pieces_is_sqnr_of_the_whole():
    x = torch.randn(60, 7, generator=torch.Generator().manual_seed(0))
    y = x.round(decimals=1)
    total = SqnrSum()
    for start in range(0, 60, 13):
        total.add(x[start : start + 13], y[start : start + 13])
    assert total.db == pytest.approx(sqnr_db(x, y), abs=1e-9)


def test_cosine_of_parallel_opposite_orthogonal_and_zero_vectors():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert (cosine(a, 3 * a), cosine(a, -a), cosine(a, b), cosine(a, 0 * a)) == (1, -1, 0, 0)
