"""The nearest grid is the one that brute force and the textbook's tables find."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attar.quantization.calibration.histogram import Histogram
from attar.quantization.ranges.omse import range_of_histogram, range_of_values

NUM_VALUES = 100_000
TEXTBOOK = 0.04
"""Max (1960) puts no point at zero; ours always has one. The two steps differ by less."""
ONE_WIDTH = 0.011
"""The two searches try widths a hundredth of the full range apart."""
SEARCHES = ("grid", "golden_section")


def values(name: str) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        normal = torch.randn(NUM_VALUES)
        laplace = torch.distributions.Laplace(0.0, 0.5**0.5).sample((NUM_VALUES,))
    shapes = {
        "normal": normal,
        "laplace": laplace,
        "shifted": normal + 1.5,
        "gelu": torch.nn.functional.gelu(2 * normal),
        "positive": laplace.abs(),
        "negative": -normal.abs(),
        "outlier": torch.cat([normal, torch.tensor([60.0])]),
    }
    return shapes[name]


def error_of(x: torch.Tensor, ends: tuple[float, float], bits: int) -> float:
    """Mean squared error of the values on the grid of this range, as slow and plain as can be."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    scale = (high - low) / (2**bits - 1)
    zero_point = round(-low / scale)
    points = (torch.arange(2**bits, dtype=torch.float64) - zero_point) * scale
    places = torch.bucketize(x.to(torch.float64), (points[1:] + points[:-1]) / 2)
    return float((x - points[places]).square().mean())


def histogram_of(x: torch.Tensor) -> Histogram:
    made = Histogram()
    made.add(x)
    return made


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("name", "bits", "step"),
    [
        ("normal", 4, 0.3352),
        ("normal", 5, 0.1881),
        ("laplace", 4, 0.4609),
        ("laplace", 5, 0.2800),
    ],
)
def test_the_step_is_the_known_optimum(name, bits, step, search):
    for found in (
        range_of_values(values(name), bits, search),
        range_of_histogram(histogram_of(values(name)), bits, search),
    ):
        assert (found[1] - found[0]) / (2**bits - 1) == pytest.approx(step, rel=TEXTBOOK)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", ["normal", "shifted", "gelu", "outlier"])
def test_no_range_of_brute_force_is_better(name, search):
    x = values(name)[-20_000:]
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    rivals = [(low * u, high * v) for u in np.linspace(0, 1, 15) for v in np.linspace(0.02, 1, 30)]
    least = min(error_of(x, ends, 4) for ends in rivals)
    assert error_of(x, range_of_values(x, 4, search), 4) <= least * 1.01


@pytest.mark.parametrize("bits", [3, 4, 6])
@pytest.mark.parametrize("name", ["normal", "shifted", "gelu", "positive", "negative"])
def test_golden_section_ends_within_a_step_of_the_grid(name, bits):
    x = values(name)
    by_grid, golden = (range_of_values(x[:20_000], bits, search) for search in SEARCHES)
    width = float(x.max().clamp(min=0) - x.min().clamp(max=0))
    assert golden[1] - golden[0] == pytest.approx(by_grid[1] - by_grid[0], abs=0.05 * width)
    assert error_of(x, golden, bits) <= error_of(x, by_grid, bits) * (1 + ONE_WIDTH)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", ["positive", "negative"])
def test_values_on_one_side_of_zero_get_the_whole_grid(name, search):
    low, high = range_of_values(values(name), 4, search)
    assert (high if name == "negative" else low) == 0
    assert low < high


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", ["normal", "gelu", "positive", "outlier"])
def test_the_error_is_never_larger_than_without_clipping(name, bits, search):
    x = values(name)[-20_000:]
    everything = (float(x.min()), float(x.max()))
    found = range_of_values(x, bits, search)
    assert error_of(x, found, bits) <= error_of(x, everything, bits) * (1 + 1e-5)


@pytest.mark.parametrize("name", ["normal", "gelu", "outlier"])
def test_a_histogram_is_as_good_as_its_values(name):
    x = values(name)
    exact, binned = range_of_values(x, 4, "grid"), range_of_histogram(histogram_of(x), 4, "grid")
    assert error_of(x, binned, 4) == pytest.approx(error_of(x, exact, 4), rel=0.01)


def grids(low: float, high: float, bits: int) -> list[tuple[float, float]]:
    """The ends of every grid that the search by widths may choose from, and of some more."""
    levels, full = 2**bits - 1, max(high, 0.0) - min(low, 0.0)
    scales = [full * k / 100 / levels for k in range(1, 101)]
    return [(-zero * s, (levels - zero) * s) for s in scales for zero in range(levels + 1)]


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_histogram_of_few_bins_gives_the_least_error_of_their_middles(bits, seed):
    """Bins as wide as half a step: one bin counted at its lower end, or given to the next point,
    is a better range elsewhere."""
    rng = np.random.default_rng(seed)
    counts, start = rng.integers(0, 60, size=9), int(rng.integers(-6, -1))
    bins = Histogram(0, start, counts, float(start), float(start + 9))
    middles = torch.from_numpy(np.repeat(start + np.arange(9) + 0.5, counts))
    least = min(error_of(middles, ends, bits) for ends in grids(start, start + 9, bits))
    found = error_of(middles, range_of_histogram(bins, bits, "grid"), bits)
    assert found == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize("search", SEARCHES)
def test_values_that_lie_on_the_grid_of_their_range_keep_it(search):
    """No narrower range is as good; golden section alone would end just inside."""
    x = torch.arange(-5.0, 11.0).repeat(3)
    assert range_of_values(x, 4, search) == pytest.approx((-5, 10), rel=1e-12)


@pytest.mark.parametrize("search", SEARCHES)
def test_silence_has_a_range_of_no_width(search):
    assert range_of_values(torch.zeros(5), 4, search) == (0, 0)
    assert range_of_histogram(histogram_of(torch.zeros(5)), 4, search) == (0, 0)
