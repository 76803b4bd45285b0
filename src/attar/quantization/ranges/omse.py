"""`omse`: the range whose grid is nearest to the tensor itself.

    (low, high) = argmin ‖X − Q(X)‖²         (`nearest_grid` says how it is searched)

*values*, as published: each batch's real values are searched by themselves, in a pass of the float
model over the texts of its own, and the ranges are averaged over batches. Each of a hundred to some
thousand candidates reads every value again.

*histogram* (ours): the values of all batches are one distribution, the histogram that the
calibration pass left, each value at the middle of its bin (a bin is at most 1/16 of a step of an
8-bit grid over the range of all values). Sums of the bins up to each place are added once;
a candidate then needs 2^bits differences of them and no pass over the values. The two differ by the
mean of optima against the optimum of the mean, and by half a bin.

Attention probabilities are treated like all others.
Source: Choukroun et al. 2019; Outlier Suppression (Wei et al. 2022), appendix D.3.
"""

from __future__ import annotations

import time
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from attar.models.structure.sites import Site
from attar.quantization.calibration.calibrate import Ranges, Watcher
from attar.quantization.calibration.histogram import Histogram
from attar.quantization.config import OmseStep
from attar.quantization.method import ChosenRanges, Problem
from attar.quantization.ranges.nearest_grid import ErrorsOf, Search, nearest_range


def omse(problem: Problem) -> ChosenRanges:
    """The range of least squared error of each site's own tensor."""
    started = time.perf_counter()
    config = problem.config
    if config.on == "values":
        ranges = _on_values(problem)
    else:
        ranges = ranges_of_histograms(problem, config.search)
    seconds = time.perf_counter() - started
    found = {"search": config.search, "on": config.on, "seconds": seconds}
    return ChosenRanges(ranges, {"omse": found})


def omse_passes(config: OmseStep) -> float:
    """One pass, whose search reads each value as long as three more take."""
    return 4 if config.on == "values" else 0


def ranges_of_histograms(problem: Problem, search: Search) -> Ranges:
    """The range of every site that is nearest to its histogram."""
    return {
        site: range_of_histogram(seen.histogram, problem.plan.site(site), search)
        for site, seen in problem.calibration.statistics.items()
    }


def _on_values(problem: Problem) -> Ranges:
    found: dict[Site, list[tuple[float, float]]] = {
        site: [] for site in problem.calibration.statistics
    }

    def searcher(site: Site) -> Watcher:
        bits, search = problem.plan.site(site), problem.config.search
        return lambda values: found[site].append(range_of_values(values, bits, search))

    watchers = {site: searcher(site) for site in found}
    problem.calibration.watch(problem.model, watchers, "search of ranges")
    return {
        site: (fmean(low for low, _ in ends), fmean(high for _, high in ends))
        for site, ends in found.items()
    }


def range_of_values(values: Tensor, bits: int, search: Search) -> tuple[float, float]:
    """The range nearest to these values, each of which is read for every candidate."""
    x = values.detach().flatten().to(torch.float32)
    low, high = (float(end) for end in x.aminmax())
    return nearest_range(low, high, bits, _errors_of_values(x, bits), search)


def range_of_histogram(histogram: Histogram, bits: int, search: Search) -> tuple[float, float]:
    """The range nearest to values at the middles of the histogram's bins."""
    errors_of = _errors_of_histogram(histogram, bits)
    return nearest_range(histogram.low, histogram.high, bits, errors_of, search)


def _errors_of_values(x: Tensor, bits: int) -> ErrorsOf:
    rounded, levels = torch.empty_like(x), 2**bits - 1

    def errors_of(scale: float, zero_points: np.ndarray) -> np.ndarray:
        errors = np.empty(len(zero_points))
        for number, zero_point in enumerate(zero_points.tolist()):
            torch.mul(x, 1 / scale, out=rounded)
            rounded.round_().clamp_(-zero_point, levels - zero_point).mul_(scale).sub_(x)
            errors[number] = float(rounded @ rounded)
        return errors

    return errors_of


def _errors_of_histogram(histogram: Histogram, bits: int) -> ErrorsOf:
    """Σ n·(x − v)² over the bins that go to point v is S₂ − 2·v·S₁ + v²·S₀, with the sums Sᵢ of
    n·xⁱ between the two ends of v's cell.
    """
    width, levels = 2.0**histogram.exponent, 2**bits - 1
    counts = histogram.counts.astype(np.float64)
    middles = (histogram.start + np.arange(len(counts)) + 0.5) * width
    sums = [np.concatenate([[0.0], np.cumsum(counts * middles**power)]) for power in range(3)]

    def errors_of(scale: float, zero_points: np.ndarray) -> np.ndarray:
        points = (np.arange(levels + 1) - zero_points[:, None]) * scale
        upper_ends = (points[:, :-1] + scale / 2) / width
        inside = np.ceil(upper_ends - histogram.start - 0.5).clip(0, len(counts)).astype(np.int64)
        places = np.pad(inside, ((0, 0), (1, 0)))
        places = np.pad(places, ((0, 0), (0, 1)), constant_values=len(counts))
        num, first, second = (np.diff(total[places], axis=1) for total in sums)
        return (second - 2 * points * first + points**2 * num).sum(axis=1)

    return errors_of
