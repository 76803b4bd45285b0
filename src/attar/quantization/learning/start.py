"""Initial ranges of learned quantizers.

*Quantization-aware training* (`lsq`, `lsq_plus`, `pact`): the paper starts LSQ+ from the coarse
stage of token-wise clipping and omits the fine stage, because the steps are trained anyway. The
LSQ+ paper starts activations at minimum squared error (`omse`). `minmax` and `mean_3sigma` are
baselines; `auto` is ours.
*Step sizes only* (`step_size`): the paper starts from `omse`.
Source: Outlier Suppression (Wei et al. 2022), section 5.3 and appendix F for training; caption of
table 15 for step sizes. Bhalgat et al. 2020 (LSQ+), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from attar.quantization.config import (
    AutoStep,
    MinmaxStep,
    OmseStep,
    QatStep,
    QuantizeSettings,
    StepSizeStep,
    TokenWiseClippingStep,
)
from attar.quantization.method import ChosenRanges, Problem, RangeFinder, no_search
from attar.quantization.ranges.auto import auto_passes, auto_ranges
from attar.quantization.ranges.extremes import mean_3sigma, minmax
from attar.quantization.ranges.omse import omse, omse_passes
from attar.quantization.ranges.token_wise_clipping import clipping_passes, token_wise_clipping


def _as_step(config: QuantizeSettings, step: type[QuantizeSettings]) -> QuantizeSettings:
    """Settings for the search of the start: the defaults of `step`, which are the paper's."""
    shared = ("model", "calibration", "weight_bits", "activation_bits", "embedding_bits")
    return step(**{name: getattr(config, name) for name in shared})


STARTS: Mapping[str, tuple[RangeFinder, Callable[[Any], float], type[QuantizeSettings]]] = {
    "token_wise_clipping": (token_wise_clipping, clipping_passes, TokenWiseClippingStep),
    "minmax": (minmax, no_search, MinmaxStep),
    "mean_3sigma": (mean_3sigma, no_search, MinmaxStep),
    "omse": (omse, omse_passes, OmseStep),
    "auto": (auto_ranges, auto_passes, AutoStep),
}
"""Start → its range finder, the passes that takes, and the step whose defaults it uses."""


def chosen_start(problem: Problem) -> ChosenRanges:
    """The ranges of `config.start`, with its name in the details."""
    start: str = problem.config.start
    find, _, step = STARTS[start]
    chosen = find(replace(problem, config=_as_step(problem.config, step)))
    return ChosenRanges(chosen.ranges, {"start": {"ranges": start, **chosen.details}})


def start_passes(config: QatStep | StepSizeStep) -> float:
    """Passes of the search for the initial ranges."""
    _, passes, step = STARTS[config.start]
    return passes(_as_step(config, step))
