"""Distinct-n, against a set of tuples."""

from __future__ import annotations

import numpy as np
import pytest

from attar.numerics.distinct import distinct_ratio


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_it_is_the_share_of_different_n_grams(n: int) -> None:
    draw = np.random.default_rng(0)
    texts = [draw.integers(0, 2**31, 3)[draw.integers(0, 3, size)] for size in (5, 1, 9, 3, 0, 4)]
    grams = [
        tuple(text[place : place + n].tolist())
        for text in texts
        for place in range(len(text) - n + 1)
    ]
    assert distinct_ratio(texts, n) == len({*grams}) / len(grams)
    assert distinct_ratio([np.arange(n - 1)], n) is None
    assert distinct_ratio([np.arange(9)], n) == 1


def test_every_pair_of_tokens_is_one_of_its_own() -> None:
    """A pair is numbered by its first token times the number of tokens, so none may share one."""
    pairs = [np.array([a, b]) for a in range(4) for b in range(4)]
    assert distinct_ratio(pairs, 2) == 1
    assert distinct_ratio([*pairs, *pairs], 2) == 0.5
    triples = [np.array([a, b, c]) for a in range(3) for b in range(3) for c in range(3)]
    assert distinct_ratio(triples, 3) == 1
    assert distinct_ratio(triples, 2) == 9 / 54
