"""The Vendi score counts distinct items, and its D × D form equals the n × n one."""

from __future__ import annotations

import numpy as np
import pytest

from attar.numerics.vendi import second_moments, vendi_score


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def _score(rows: np.ndarray) -> float:
    return vendi_score(second_moments(rows))


def test_identical_rows_count_once(draw: np.random.Generator) -> None:
    assert _score(np.tile(draw.normal(size=16), (50, 1))) == pytest.approx(1.0)


def test_orthogonal_rows_all_count(draw: np.random.Generator) -> None:
    rows = np.linalg.qr(draw.normal(size=(16, 16)))[0][:9]
    assert _score(rows) == pytest.approx(9.0)


def test_repeating_the_sample_changes_nothing(draw: np.random.Generator) -> None:
    rows = draw.normal(size=(40, 16))
    assert _score(np.vstack([rows] * 3)) == pytest.approx(_score(rows))


def test_order_length_and_rotation_do_not_count(draw: np.random.Generator) -> None:
    rows = draw.normal(size=(40, 16))
    turned = rows @ np.linalg.qr(draw.normal(size=(16, 16)))[0]
    scaled = turned[draw.permutation(40)] * draw.uniform(0.1, 9, size=(40, 1))
    assert _score(scaled) == pytest.approx(_score(rows))


@pytest.mark.parametrize("n", [5, 40])  # fewer and more rows than dimensions
def test_it_equals_the_form_over_pairs_of_rows(draw: np.random.Generator, n: int) -> None:
    rows = draw.normal(size=(n, 16))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(unit @ unit.T / n)
    shares = shares[shares > 1e-12]
    assert _score(rows) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_moments_of_parts_add_up(draw: np.random.Generator) -> None:
    rows = draw.normal(size=(40, 16))
    parts = second_moments(rows[:7]) + second_moments(rows[7:])
    assert vendi_score(parts) == pytest.approx(_score(rows))
