"""A shuffled order is a permutation, differs by epoch and seed, and depends on nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from attar.data.corpus.order import shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000, 4097])
def test_every_item_comes_once(size: int) -> None:
    assert sorted(shuffled(np.arange(size), size, 3, 0).tolist()) == list(range(size))


def test_a_place_alone_gives_what_it_gives_among_all() -> None:
    everything = shuffled(np.arange(777), 777, 5, 2)
    alone = [int(shuffled(np.array([place]), 777, 5, 2)[0]) for place in (0, 1, 400, 776)]
    assert alone == everything[[0, 1, 400, 776]].tolist()


@pytest.mark.parametrize("other", [(5, 3), (6, 2)])
def test_another_epoch_or_seed_is_another_order(other: tuple[int, int]) -> None:
    places = np.arange(2000)
    first, second = shuffled(places, 2000, 5, 2), shuffled(places, 2000, *other)
    assert (first == second).mean() < 0.01


def test_neighbours_land_anywhere() -> None:
    size, epochs = 1000, 40
    orders = np.stack([shuffled(np.arange(size), size, 0, epoch) for epoch in range(epochs)])
    # of independent uniform draws: mean distance of neighbours size / 3, correlation 0 ± 1/√N
    assert abs(np.abs(np.diff(orders, axis=1)).mean() / size - 1 / 3) < 0.01
    assert abs(np.corrcoef(orders[:, :-1].ravel(), orders[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(orders.mean(0) - size / 2).max() < 5 * size / np.sqrt(12 * epochs)


def test_every_order_of_few_items_comes_about_equally_often() -> None:
    places, orders = np.arange(5), 120
    drawn = (tuple(shuffled(places, 5, 1, epoch).tolist()) for epoch in range(20 * orders))
    counts = Counter(drawn)
    # 20 are expected of each, ± 4.5
    assert len(counts) == orders
    assert 4 < min(counts.values()) <= max(counts.values()) < 42
