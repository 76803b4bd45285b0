"""`auto`: each range by what it measurably saves at the outputs.

Every rule for ranges is right for some tensor, so all of them propose, and the final outputs
decide, twice:

    1  every rule everywhere; the one with the least ‖f̂(x) − f(x)‖² becomes the start
    2  kind by kind, the most hurtful first: keep the proposal that brings the outputs nearest

Weights are on their grids meanwhile, so errors that cancel are seen to cancel. The answer is never
worse on the calibration texts than any rule alone. A rule or an exchange is given up once part of
the texts shows it to be worse, so a try costs a fraction of a pass; beside them stands one backward
pass, which also says which kinds hurt.

Left out: pairs of exchanges; a choice for each single site, which fits 256 texts too well.
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
"""Hundredths of the tokens clipped, in steps that grow with them."""
FINER_SHARES = (0.99, 0.995)
"""Beside the three published shares, whose smallest clips too little at 4 bits."""
NUM_RIVALS = 3
"""Rules, beside the winner, that may replace it at one kind of site: the best of the rest."""
HOPELESS = 4.0
"""A rule is given up once its error is known to be this many times the best one's."""


def auto_ranges(problem: Problem) -> ChosenRanges:
    """The ranges of the best rule, with every kind of site exchanged that another serves better."""
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
    """Counted on small models; how many exchanges are tried depends on the model."""
    return 40


def _proposals(problem: Problem, gradients: OutputGradients) -> Mapping[str, Ranges]:
    """What each rule would do, by its name."""
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
    """Kinds of sites in the order of what their errors do to the outputs, to first order."""
    lost: dict[str, float] = {}
    for site, (low, high) in ranges.items():
        found = gradients.lost(site, low, high, problem.plan.site(site))
        lost[site.kind] = lost.get(site.kind, 0.0) + found
    return sorted(lost, key=lambda kind: -lost[kind])
