"""Statistics of a stream are those of its concatenation, in any chunking, order and split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.quantization.calibration.histogram import MAX_BINS, Histogram
from attar.quantization.calibration.observers import SiteStatistics


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


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_statistics_do_not_depend_on_the_order_of_batches(seed):
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(3 + n, 4, generator=generator) * 10**n + n for n in range(5)]
    ours, theirs = SiteStatistics(), SiteStatistics()
    for batch, other in zip(batches, reversed(batches), strict=True):
        ours.add(batch)
        theirs.add(other)
    assert (ours.low, ours.high) == (theirs.low, theirs.high)
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    assert (ours.mean_low, ours.mean_high) == (theirs.mean_low, theirs.mean_high)
    assert ours.mean_low == pytest.approx(np.mean([float(b.min()) for b in batches]), rel=1e-12)
    assert same(ours.histogram, theirs.histogram)
    for mine, other in zip(
        (ours.token_lows, ours.token_highs), (theirs.token_lows, theirs.token_highs), strict=True
    ):
        assert torch.equal(torch.cat(mine).sort().values, torch.cat(other).sort().values)
    assert ours.ema_high(0.9) != theirs.ema_high(0.9)  # a moving average asks for the order


def test_mean_and_deviation_are_those_of_all_values():
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)) * 3 + 50
    made = SiteStatistics()
    for chunk in x.split(70):
        made.add(chunk)
    exact = x.double()
    assert made.mean == pytest.approx(float(exact.mean()), rel=1e-12)
    assert made.std == pytest.approx(float(exact.std(correction=0)), rel=1e-10)


def test_token_extremes_are_kept_row_by_row_and_not_of_probabilities():
    made, of_probabilities = SiteStatistics(), SiteStatistics()
    for batch in (torch.tensor([[1.0, -2.0], [3.0, 5.0]]), torch.tensor([[0.0, 7.0]])):
        made.add(batch)
        of_probabilities.add(batch, by_token=False)
    assert torch.cat(made.token_lows).tolist() == [-2, 3, 0]
    assert torch.cat(made.token_highs).tolist() == [1, 5, 7]
    assert not of_probabilities.has_tokens
    assert of_probabilities.batch_highs == made.batch_highs


def test_a_value_that_is_not_finite_is_noticed():
    statistics = SiteStatistics()
    statistics.add(torch.tensor([1.0, float("nan")]))
    assert not statistics.is_finite


def test_values_are_taken_to_lie_evenly_inside_their_bin():
    bins = Histogram(0, 0, np.array([4, 0, 8]), 0.0, 3.0)
    shares = [0.0, 1 / 12, 1 / 4, 1 / 3, 5 / 12, 2 / 3, 1.0]
    assert [bins.quantile(share) for share in shares] == pytest.approx(
        [0.0, 0.25, 0.75, 1.0, 2.125, 2.5, 3.0]
    )
