"""Laws of length-grouped batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.data.batches import LengthGroupedBatches
from attar.errors import UsageError

lengths_lists = st.lists(st.integers(1, 128), max_size=300)


@settings(max_examples=60, deadline=None)
@given(lengths_lists, st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_every_row_comes_exactly_once_an_epoch(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    batches = LengthGroupedBatches(lengths, batch_size, seed)
    found = batches.epoch(epoch)
    assert sorted(int(row) for batch in found for row in batch) == list(range(len(lengths)))
    assert len(found) == len(batches)
    for batch in found:
        assert 1 <= len(batch) <= batch_size
    assert sum(len(batch) < batch_size for batch in found) <= 1


def test_an_epoch_is_a_pure_function_of_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, size=500)

    def order(seed: int, epoch: int) -> list[int]:
        batches = LengthGroupedBatches(lengths, 8, seed)
        batches.epoch(7)  # asking for another epoch first must not matter
        return np.concatenate(batches.epoch(epoch)).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_grouping_by_length_saves_most_of_the_padding() -> None:
    def real_share(batches: list[np.ndarray]) -> float:
        return lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in batches)

    random = np.random.default_rng(1)
    lengths = np.minimum(random.geometric(1 / 12, size=4000) + 2, 128)  # skewed, as sentences are
    grouped = LengthGroupedBatches(lengths, 32, 0).epoch(0)
    shuffled = np.array_split(random.permutation(len(lengths)), len(grouped))
    assert real_share(shuffled) < 0.4
    assert real_share(grouped) > 0.85


def test_batches_are_not_in_order_of_length() -> None:
    lengths = np.arange(1, 801)
    longest = [lengths[batch].max() for batch in LengthGroupedBatches(lengths, 16, 0).epoch(0)]
    assert longest != sorted(longest)


def test_rows_of_different_lengths_meet_other_neighbours_too() -> None:
    """Sorting all rows at once would bring the same ones together in every epoch."""
    lengths = np.arange(1, 1601)
    batches = LengthGroupedBatches(lengths, 8, 0)
    together = [{frozenset(batch.tolist()) for batch in batches.epoch(e)} for e in (0, 1)]
    assert len(together[0] & together[1]) < 10


def test_rows_meet_other_neighbours_in_another_epoch() -> None:
    lengths = np.full(640, 9)
    batches = LengthGroupedBatches(lengths, 8, 0)
    together = [{frozenset(batch.tolist()) for batch in batches.epoch(e)} for e in (0, 1)]
    assert not together[0] & together[1]


def test_a_batch_of_no_rows_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size is 0"):
        LengthGroupedBatches([1], 0, 0)
