"""Where learning begins: the ranges that grids are first made of.

A step that starts ten times too coarse is not found again in a few epochs, so learning starts where
a calibrator ends.

*Quantization-aware training* (`lsq`, `lsq_plus`, `pact`): the paper starts LSQ+ from the coarse
stage of token-wise clipping and leaves the fine stage out, because steps are learned anyway. LSQ+
itself starts activations from their least squared error (`omse`). `minmax` and `mean_3sigma` are
there to compare with; `auto` is ours.
*Step sizes alone* (`step_size`): the paper starts from `omse`, the ranges of least squared error.
Source: Outlier Suppression (Wei et al. 2022), section 5.3 and appendix F for training; caption of
table 15 for step sizes. Bhalgat et al. 2020 (LSQ+), section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attar.quantization.config import (
    AutoStep,
    OmseStep,
    QuantizeSettings,
    TokenWiseClippingStep,
)
from attar.quantization.method import ChosenRanges, Problem, RangeFinder
from attar.quantization.ranges.auto import auto_ranges
from attar.quantization.ranges.mean_3sigma import mean_3sigma
from attar.quantization.ranges.minmax import minmax
from attar.quantization.ranges.omse import omse
from attar.quantization.ranges.token_wise_clipping import token_wise_clipping


def _coarse_stage(problem: Problem) -> ChosenRanges:
    """Token-wise clipping with the paper's settings, which are its step's defaults."""
    return token_wise_clipping(_as_step(problem, TokenWiseClippingStep))


def _auto(problem: Problem) -> ChosenRanges:
    """The ranges of `auto`, by the mean squared error of the outputs."""
    return auto_ranges(_as_step(problem, AutoStep))


def _omse(problem: Problem) -> ChosenRanges:
    """Least squared error of each tensor, as the method `omse` finds it by default."""
    return omse(_as_step(problem, OmseStep))


def _as_step(problem: Problem, step: type[QuantizeSettings]) -> Problem:
    """The problem as a step without learning sees it, at that step's defaults."""
    shared = ("model", "calibration", "weight_bits", "activation_bits", "embedding_bits")
    given = {name: getattr(problem.config, name) for name in shared}
    return replace(problem, config=step(**given))


STARTS: Mapping[str, RangeFinder] = {
    "token_wise_clipping": _coarse_stage,
    "minmax": minmax,
    "mean_3sigma": mean_3sigma,
    "omse": _omse,
    "auto": _auto,
}


def chosen_start(problem: Problem) -> ChosenRanges:
    """The ranges of `config.start`, and its name in the details."""
    start: str = problem.config.start
    chosen = STARTS[start](problem)
    return ChosenRanges(chosen.ranges, {"start": {"ranges": start, **chosen.details}})
