"""`token_wise_clipping`: cut the tokens that stretch the range, as far as the outputs allow.

In a tensor with outliers a handful of tokens carry all the largest values. Each token is described
by its two extremes, a share of *tokens* is clipped, and the final outputs decide how large a share:

    o^u = {max_j X_tj : t},  o^l = {min_j X_tj : t}                   two numbers per token
    c^u(α) = quantile(o^u, α),  c^l(α) = quantile(o^l, 1 − α)         at every site the same α
    α = 1 − 0.01·k for k = 0 … K−1;  the one with the least ‖f̂(x) − f(x)‖² of the final outputs wins

The extremes were stored in the one float pass. All α are tried, as in the paper: the error is not
convex in α. But an α is given up as soon as a part of the texts shows it to be worse than the best
so far, which changes nothing about which one wins; so that a good one is met early, every eighth is
tried first, then those halfway between. K quantized passes are the most it costs.

At α = 1 the range holds every value seen: it is wider than `minmax`, which averages the batches'
extremes. Attention probabilities are never clipped.

With `alpha = "per_kind"` (ours) each kind of site is then moved alone by 8, 4, 2 and 1 hundredths
up and down, and a move is kept when the outputs come nearer to float: at most 8 passes a kind more.

*Differs from the paper*: Algorithm 1 writes quantile(o^l, α) for the lower end, with o^l taken as
distances below zero; with signed minima that is 1 − α. The weights are quantized already while α is
searched. The learned (fine) stage is `quantization.learning.step_learning`.
Source: Outlier Suppression (Wei et al. 2022), section 4.2, algorithm 1 and equation 6.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attar.models.structure.sites import Site
from attar.quantization.calibration.calibrate import Calibration, OutputError, Ranges
from attar.quantization.config import Clipping
from attar.quantization.method import ChosenRanges, Problem

STEP = 0.01
"""Between two α."""
NUM_CANDIDATES = {8: 10, 7: 20, 6: 30, 5: 60, 4: 90}
"""Bits → how many α are tried: the authors' 10, 30 and 90, halfway between them for odd widths
(more bits clip less)."""
MOST_CANDIDATES = 90
"""At 3 and 2 bits."""
STRIDES = (8, 4, 2, 1)
"""Step widths in which candidates are tried."""
MOVES = (8, 4, 2, 1)
"""Hundredths by which the α of one kind is moved."""


@dataclass(frozen=True)
class TokenRanges:
    """The range of every site at every α, worked out once."""

    by_site: Mapping[Site, Sequence[tuple[float, float]]]
    """Number k of α → (low, high)."""

    @classmethod
    def of(cls, calibration: Calibration) -> TokenRanges:
        """α = 1, 0.99 … 0.01 of what `calibration` stored."""
        shares = np.array([alpha_of(number) for number in range(round(1 / STEP))])
        by_site: dict[Site, Sequence[tuple[float, float]]] = {}
        for site, seen in calibration.statistics.items():
            if not seen.has_tokens:
                by_site[site] = [(seen.low, seen.high)] * len(shares)
                continue
            lows, highs = (
                torch.cat(tokens).to(torch.float64).numpy()
                for tokens in (seen.token_lows, seen.token_highs)
            )
            ends = zip(np.quantile(lows, 1 - shares), np.quantile(highs, shares), strict=True)
            # zero is on every grid; clipped hard, the minima may lie above it and the maxima below
            by_site[site] = [(min(float(low), 0.0), max(float(high), 0.0)) for low, high in ends]
        return cls(by_site)

    def at(self, number: int, of_kinds: Mapping[str, int] | None = None) -> Ranges:
        """The ranges at the α of this number, or at each kind's own."""
        numbers = of_kinds or {}
        return {
            site: ranges[numbers.get(site.kind, number)] for site, ranges in self.by_site.items()
        }


def alpha_of(number: int) -> float:
    """The k-th share of tokens that is kept: 1 − 0.01·k."""
    return round(1 - STEP * number, 10)


def num_candidates(bits: int) -> int:
    """How many α are tried at this width, where the recipe does not say."""
    return NUM_CANDIDATES.get(bits, MOST_CANDIDATES)


def narrowest_width(problem: Problem) -> int:
    """The least bits of a site under the problem's plan: narrow grids want the most clipping."""
    return min(map(problem.plan.site, problem.calibration.statistics))


def token_wise_clipping(problem: Problem) -> ChosenRanges:
    """The ranges at the α, or the α of each kind, whose outputs stay nearest to float."""
    started = time.perf_counter()
    config, passes_before = problem.config, problem.calibration.num_quantized_passes
    ranges = TokenRanges.of(problem.calibration)
    count = config.candidates or num_candidates(narrowest_width(problem))
    errors = _search_all(problem, ranges, count)
    best = min(errors, key=lambda number: (errors[number].value, number))
    found: dict[str, Any] = {
        "alpha": alpha_of(best),
        "output_error": errors[best].value,
        "loss": config.loss,
        "candidates": [
            {
                "alpha": alpha_of(number),
                "output_error": errors[number].value,
                "is_whole": errors[number].is_whole,
            }
            for number in sorted(errors)
        ],
    }
    chosen = ranges.at(best)
    if config.alpha == "per_kind":
        of_kinds, error = _search_kinds(problem, ranges, best, errors[best].value)
        found["alpha_of_kinds"] = {kind: alpha_of(number) for kind, number in of_kinds.items()}
        found["output_error"] = error
        chosen = ranges.at(best, of_kinds)
    found["num_passes"] = problem.calibration.num_quantized_passes - passes_before
    found["seconds"] = time.perf_counter() - started
    return ChosenRanges(chosen, {"clipping": found})


def clipping_passes(config: Clipping) -> float:
    """A bad α is given up before its end, so a candidate is 0.6 passes; 45 for the α of each kind
    by itself. Counted on small models."""
    tried = config.candidates or num_candidates(config.activation_bits)
    return 0.6 * tried + 45 * (config.alpha == "per_kind")


def _search_all(problem: Problem, ranges: TokenRanges, count: int) -> dict[int, OutputError]:
    """Number of α → the error of its outputs, or a bound that says that it does not win."""
    config, least = problem.config, math.inf
    errors: dict[int, OutputError] = {}
    for stride in STRIDES:
        for number in range(0, count, stride):
            if number not in errors:
                limit = math.inf if config.whole_curve else least
                tried = problem.output_error_up_to(limit, ranges.at(number), config.loss)
                errors[number], least = tried, min(least, tried.value)
    return errors


def _search_kinds(
    problem: Problem, ranges: TokenRanges, start: int, error: float
) -> tuple[dict[str, int], float]:
    """Coordinate search from the same α everywhere: the α of each kind, and the least error."""
    statistics = problem.calibration.statistics
    kinds = dict.fromkeys(site.kind for site, seen in statistics.items() if seen.has_tokens)
    best = dict.fromkeys(kinds, start)
    last = round(1 / STEP) - 1
    for move in MOVES:
        for kind in kinds:
            here = best[kind]
            for number in (here - move, here + move):
                moved = {**best, kind: number}
                if not 0 <= number <= last:
                    continue
                loss = problem.config.loss
                tried = problem.output_error_up_to(error, ranges.at(start, moved), loss)
                if tried.value < error:
                    best, error = moved, tried.value
    return best, error
