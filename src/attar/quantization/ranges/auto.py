"""`auto`: chooses ranges by measured output error.

No single range rule is best for every tensor. So every rule proposes ranges, and the output error
decides, in two stages:

    1  every rule everywhere; the one with the least ‖f̂(x) − f(x)‖² becomes the start
    2  for each kind of site, the most harmful first: keep the proposal with the least error

Weights are already quantized, so cancelling errors are taken into account. On the calibration texts
the result is never worse than any single rule. A candidate is stopped as soon as part of the texts
shows that it is worse, so a trial costs a fraction of a pass. One additional backward pass gives
the gradients that rank the kinds of sites.

Left out: changing two kinds at once, and a choice per site, which overfits 256 texts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from attar.quantization.calibration.calibrate import Ranges
from attar.quantization.config import AutoStep
from attar.quantization.method import ChosenRanges, Problem
from attar.quantization.ranges.extremes import minmax
from attar.quantization.ranges.gradient_weighted import OutputGradients
from attar.quantization.ranges.omse import ranges_of_histograms
from attar.quantization.ranges.percentile import SHARES, ranges_at
from attar.quantization.ranges.token_wise_clipping import TokenRanges, alpha_of

TOKEN_NUMBERS = (0, 1, 3, 6, 12, 25)
"""Percentages of tokens to clip, with increasing spacing."""
FINER_SHARES = (0.99, 0.995)
"""Quantiles added to the three published ones, all of which clip too little at 4 bits."""
NUM_RIVALS = 3
"""Number of next-best rules that may replace the winner at a kind of site."""
HOPELESS = 4.0
"""A rule is stopped once its error exceeds the best error by this factor."""


def auto_ranges(problem: Problem) -> ChosenRanges:
    """Ranges of the best rule, replaced at each kind of site where another rule is better."""
    started = time.perf_counter()
    loss, gradients = problem.config.loss, OutputGradients.of(problem)
    proposals = _proposals(problem, gradients)
    errors: dict[str, float] = {}
    for name, ranges in proposals.items():
        limit = HOPELESS * min(errors.values(), default=math.inf)
        errors[name] = problem.output_error_up_to(limit, ranges, loss).value
    ranked = sorted(errors, key=lambda name: errors[name])
    winner, rivals = ranked[0], ranked[1 : NUM_RIVALS + 1]
    chosen, error = dict(proposals[winner]), errors[winner]
    exchanged: dict[str, str] = {}
    for kind in _most_hurtful_first(problem, chosen, gradients):
        for rival in rivals:
            others = {site: r for site, r in proposals[rival].items() if site.kind == kind}
            tried = chosen | others
            found = problem.output_error_up_to(error, tried, loss)
            if found.value < error:
                chosen, error, exchanged[kind] = tried, found.value, rival
    details = {
        "proposals": errors,
        "start": winner,
        "exchanged_kinds": exchanged,
        "output_error": error,
        "loss": loss,
        "seconds": time.perf_counter() - started,
    }
    return ChosenRanges(chosen, {"ranges": details})


def auto_passes(config: AutoStep) -> float:
    """Average passes, counted on small models; the number of trials depends on the model."""
    return 40


def _proposals(problem: Problem, gradients: OutputGradients) -> Mapping[str, Ranges]:
    """Rule name → its ranges."""
    calibration = problem.calibration
    tokens = TokenRanges.of(calibration)
    found: dict[str, Ranges] = {"minmax": minmax(problem).ranges}
    for share in (*FINER_SHARES, *SHARES):
        found[f"percentile {share:g}"] = ranges_at(share, calibration)
    for number in TOKEN_NUMBERS:
        found[f"token quantile {alpha_of(number):g}"] = tokens.at(number)
    found["omse"] = ranges_of_histograms(problem, "golden_section")
    found["gradient_weighted"] = {
        site: gradients.best_range(site, problem.plan.site(site)) for site in gradients.meters
    }
    return found


def _most_hurtful_first(problem: Problem, ranges: Ranges, gradients: OutputGradients) -> list[str]:
    """Kinds of sites, ordered by the first-order estimate of their effect on the outputs."""
    lost: dict[str, float] = {}
    for site, (low, high) in ranges.items():
        found = gradients.lost(site, low, high, problem.plan.site(site))
        lost[site.kind] = lost.get(site.kind, 0.0) + found
    return sorted(lost, key=lambda kind: -lost[kind])
