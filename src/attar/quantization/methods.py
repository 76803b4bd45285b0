"""The table of methods. Each is a preset of transform, weights, ranges and refinement.

To add one, write its module, add a member of the union in `config` and a row here, and document it
in docs/methods.
"""

from __future__ import annotations

from collections.abc import Mapping

from attar.quantization.config import QuantizeSettings
from attar.quantization.learning.qat import QAT
from attar.quantization.learning.start import chosen_start, start_passes
from attar.quantization.learning.step_learning import STEP_LEARNING
from attar.quantization.method import Method, no_search
from attar.quantization.ranges.auto import auto_passes, auto_ranges
from attar.quantization.ranges.extremes import ema_minmax, minmax
from attar.quantization.ranges.omse import omse, omse_passes
from attar.quantization.ranges.percentile import percentile, percentile_passes
from attar.quantization.ranges.token_wise_clipping import clipping_passes, token_wise_clipping

METHODS: Mapping[str, Method] = {
    "minmax": Method(minmax, no_search),
    "ema_minmax": Method(ema_minmax, no_search),
    "percentile": Method(percentile, percentile_passes),
    "omse": Method(omse, omse_passes),
    "smoothquant": Method(minmax, no_search, transform="smoothquant"),
    "os_plus": Method(minmax, no_search, transform="os_plus"),
    "token_wise_clipping": Method(token_wise_clipping, clipping_passes, refine=STEP_LEARNING),
    "outlier_suppression": Method(
        token_wise_clipping, clipping_passes, transform="gamma", refine=STEP_LEARNING
    ),
    "step_size": Method(chosen_start, start_passes, refine=STEP_LEARNING),
    "auto": Method(auto_ranges, auto_passes, transform="auto", weights="gptq"),
    "lsq": Method(chosen_start, start_passes, weights="clipped", refine=QAT, full_range=True),
    "lsq_plus": Method(chosen_start, start_passes, weights="clipped", refine=QAT, full_range=True),
    "pact": Method(chosen_start, start_passes, refine=QAT),
}


def name_of(config: QuantizeSettings) -> str:
    """Name of the method, a field of every member of the union."""
    return getattr(config, "method")  # noqa: B009


def method_of(config: QuantizeSettings) -> Method:
    """The table row of the step's method."""
    return METHODS[name_of(config)]
