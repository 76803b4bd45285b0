"""Statistics of a stream are those of its concatenation, in any chunking, order and split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.quantization.histogram import MAX_BINS, Histogram
from attar.quantization.observers import SiteStatistics, merged


def same(a: Histogram, b: Histogram) -> bool:
    return (a.exponent, a.start, a.low, a.high) == (b.exponent, b.start, b.low, b.high) and bool(
        np.array_equal(a.counts, b.counts)
    )


def histogram_of(*chunks: torch.Tensor) -> Histogram:
    made = Histogram()
    for chunk in chunks:
        made.add(chunk)
    return made


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 400), max_size=5),
    scales=st.lists(st.sampled_from([1e-6, 0.1, 1.0, 300.0]), min_size=4, max_size=4),
)
def test_a_histogram_does_not_depend_on_chunking_or_order(seed, cuts, scales):
    generator = torch.Generator().manual_seed(seed)
    x = torch.cat([torch.randn(100, generator=generator) * scale for scale in scales])
    whole = histogram_of(x)
    chunks = list(torch.tensor_split(x, sorted(cuts)))
    assert same(histogram_of(*chunks), whole)
    assert same(histogram_of(*reversed(chunks)), whole)
    left, right = histogram_of(*chunks[::2]), histogram_of(*chunks[1::2])
    left.merge(right)
    assert same(left, whole)
    assert whole.num_values == 400
    assert whole.counts.size <= MAX_BINS


@pytest.mark.parametrize("share", [0.0, 0.001, 0.25, 0.5, 0.9, 0.99999, 1.0])
def test_a_quantile_lies_within_a_bin_of_its_neighbours_in_sorted_order(share):
    x = torch.randn(50_000, generator=torch.Generator().manual_seed(0)) * 3 - 1
    made = histogram_of(x)
    width = 2.0**made.exponent
    ordered, rank = x.sort().values, int(np.ceil(share * len(x)))
    below, above = ordered[max(rank - 1, 0)], ordered[min(rank, len(x) - 1)]
    assert float(below) - width <= made.quantile(share) <= float(above) + width
    assert width < float(x.max() - x.min()) / (MAX_BINS / 2 - 1)


def test_quantiles_never_leave_the_values():
    made = histogram_of(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1000.0]))
    assert made.quantile(0.0) == 1.0
    assert made.quantile(1.0) == 1000.0
    assert histogram_of(torch.tensor([0.75])).quantile(0.3) == 0.75


def test_an_empty_histogram_has_no_quantile():
    with pytest.raises(ValueError, match="at least one value"):
        Histogram().quantile(0.5)


def test_statistics_of_two_workers_are_those_of_one():
    batches = [torch.randn(9, 4, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    one, parts = SiteStatistics(), [SiteStatistics(), SiteStatistics()]
    for number, batch in enumerate(batches):
        one.add(batch)
        parts[number % 2].add(batch)
    both = merged(parts)
    assert (both.mean_low, both.mean_high) == (one.mean_low, one.mean_high)
    assert same(both.histogram, one.histogram)
    lows = [float(batch.min()) for batch in batches]
    assert one.mean_low == pytest.approx(np.mean(lows), rel=1e-12)


def test_a_value_that_is_not_finite_is_noticed():
    statistics = SiteStatistics()
    statistics.add(torch.tensor([1.0, float("nan")]))
    assert not statistics.is_finite
