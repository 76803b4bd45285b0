"""`omse`: the range of minimum squared error between a tensor and its quantized values.

    (low, high) = argmin ‖X − Q(X)‖²         (searched as in `nearest_grid`)

*values*, as published: the range of each batch is searched separately, in an additional pass of the
float model, and averaged over batches. Each of hundreds to thousands of candidates reads every
value again.

*histogram* (ours): one search for all batches, on the calibration histogram, with each value at the
middle of its bin (at most 1/16 of a step of an 8-bit grid over the full range). Cumulative sums of
the bins are computed once; a candidate then takes 2^bits differences and no pass over the values.
The results differ because the optimum of all batches is not the mean of the batches' optima, and by
half a bin.

Attention probabilities are treated like all other tensors.
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
    """The range of minimum squared error of each site's tensor."""
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
    """One pass, plus the search, which takes about as long as three passes."""
    return 4 if config.on == "values" else 0


def ranges_of_histograms(problem: Problem, search: Search) -> Ranges:
    """The range of minimum squared error of every site's histogram."""
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
    """The range of minimum squared error of `values`; every candidate reads all of them."""
    x = values.detach().flatten().to(torch.float32)
    low, high = (float(end) for end in x.aminmax())
    return nearest_range(low, high, bits, _errors_of_values(x, bits), search)


def range_of_histogram(histogram: Histogram, bits: int, search: Search) -> tuple[float, float]:
    """The range of minimum squared error of a histogram, with values at the middle of the bins."""
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
    """The error Σ n·(x − v)² of the bins rounded to grid point v is S₂ − 2·v·S₁ + v²·S₀, where Sᵢ
    is the sum of n·xⁱ over these bins.
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
