"""`token_wise_clipping`: clips the tokens that widen the range, as far as the outputs allow.

In a tensor with outliers, a few tokens hold all of the largest values. Each token is represented by
its maximum and minimum, a fraction of *tokens* is clipped, and the output error decides which:

    o^u = {max_j X_tj : t},  o^l = {min_j X_tj : t}                   two numbers per token
    c^u(α) = quantile(o^u, α),  c^l(α) = quantile(o^l, 1 − α)         the same α at every site
    α = 1 − 0.01·k for k = 0 … K−1, chosen to minimize ‖f̂(x) − f(x)‖² of the final outputs

The extremes are stored in the calibration pass. All α are tried, as in the paper, because the error
is not convex in α. A candidate is stopped as soon as part of the texts shows that it is worse than
the best so far; this does not change the result. To find a good candidate early, every eighth is
tried first, then those halfway between. The search takes at most K quantized passes.

At α = 1 the range contains all values, so it is wider than `minmax`, which averages the extremes of
batches. Attention probabilities are never clipped.

With `alpha = "per_kind"` (ours), the α of each kind of site is then changed separately by ±0.08,
±0.04, ±0.02 and ±0.01, and a change is kept if it reduces the output error: at most 8 more passes
per kind.

*Differs from the paper*: Algorithm 1 writes quantile(o^l, α) for the lower end, where o^l are
distances below zero; for signed minima the quantile is 1 − α. Weights are already quantized during
the search. The learned (fine) stage is in `quantization.learning.step_learning`.
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
"""Spacing of the α candidates."""
NUM_CANDIDATES = {8: 10, 7: 20, 6: 30, 5: 60, 4: 90}
"""Bits → number of α to try: the authors' 10, 30 and 90, and midpoints for odd widths (more bits
need less clipping)."""
MOST_CANDIDATES = 90
"""Number of α to try at 3 and 2 bits."""
STRIDES = (8, 4, 2, 1)
"""Strides in which candidates are tried, the coarsest first."""
MOVES = (8, 4, 2, 1)
"""Changes of the α of one kind, in hundredths."""


@dataclass(frozen=True)
class TokenRanges:
    """The precomputed range of every site at every α."""

    by_site: Mapping[Site, Sequence[tuple[float, float]]]
    """Index k of α → (low, high)."""

    @classmethod
    def of(cls, calibration: Calibration) -> TokenRanges:
        """Compute the ranges at α = 1, 0.99 … 0.01 from the calibration statistics."""
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
            # every grid contains zero, but with strong clipping the low end may be above it, or the
            # high end below
            by_site[site] = [(min(float(low), 0.0), max(float(high), 0.0)) for low, high in ends]
        return cls(by_site)

    def at(self, number: int, of_kinds: Mapping[str, int] | None = None) -> Ranges:
        """The ranges at the α with this index, except for kinds with their own index."""
        numbers = of_kinds or {}
        return {
            site: ranges[numbers.get(site.kind, number)] for site, ranges in self.by_site.items()
        }


def alpha_of(number: int) -> float:
    """The k-th fraction of tokens to keep: 1 − 0.01·k."""
    return round(1 - STEP * number, 10)


def num_candidates(bits: int) -> int:
    """Default number of α to try at this bit width."""
    return NUM_CANDIDATES.get(bits, MOST_CANDIDATES)


def narrowest_width(problem: Problem) -> int:
    """Smallest bit width of any site in the plan, which needs the most clipping."""
    return min(map(problem.plan.site, problem.calibration.statistics))


def token_wise_clipping(problem: Problem) -> ChosenRanges:
    """The ranges at the α, or at the α per kind of site, with the minimum output error."""
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
    """Average passes, counted on small models: 0.6 per candidate, because bad candidates stop
    early, and 45 more for `per_kind`."""
    tried = config.candidates or num_candidates(config.activation_bits)
    return 0.6 * tried + 45 * (config.alpha == "per_kind")


def _search_all(problem: Problem, ranges: TokenRanges, count: int) -> dict[int, OutputError]:
    """Index of α → its output error, or a lower bound if it was stopped early."""
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
    """Coordinate search starting from one common α. Returns the α index per kind, and the error."""
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
