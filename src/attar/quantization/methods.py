"""The table of methods: each one a preset of transform, weights, ranges and refinement.

To add one: its file beside those it resembles, a member of the union in `config`, a row here, and
its card in docs/methods.
"""

from __future__ import annotations

from collections.abc import Mapping

from attar.quantization.learning.qat import train_quantized
from attar.quantization.learning.start import chosen_start
from attar.quantization.learning.step_learning import learn_steps
from attar.quantization.method import Method
from attar.quantization.ranges.auto import auto_ranges
from attar.quantization.ranges.ema_minmax import ema_minmax
from attar.quantization.ranges.minmax import minmax
from attar.quantization.ranges.omse import omse
from attar.quantization.ranges.percentile import percentile
from attar.quantization.ranges.token_wise_clipping import token_wise_clipping

METHODS: Mapping[str, Method] = {
    "minmax": Method(minmax),
    "ema_minmax": Method(ema_minmax),
    "percentile": Method(percentile),
    "omse": Method(omse),
    "smoothquant": Method(minmax, transform="smoothquant"),
    "os_plus": Method(minmax, transform="os_plus"),
    "token_wise_clipping": Method(token_wise_clipping, refine=learn_steps),
    "outlier_suppression": Method(token_wise_clipping, transform="gamma", refine=learn_steps),
    "step_size": Method(chosen_start, refine=learn_steps),
    "auto": Method(auto_ranges, transform="auto", weights="gptq"),
    "lsq": Method(chosen_start, weights="clipped", refine=train_quantized, full_range=True),
    "lsq_plus": Method(chosen_start, weights="clipped", refine=train_quantized, full_range=True),
    "pact": Method(chosen_start, refine=train_quantized),
}
