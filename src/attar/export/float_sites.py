"""Sites of a quantized model that stay float in the exported model. Imports no torch.

Queries, keys, values and attention probabilities stay float, because OpenVINO computes attention
products in float whenever an operand has a zero point (docs/decisions/0002-export-by-lowering.md).
Symmetric queries and keys have no zero point, so OpenVINO multiplies them in int8. ONNX Runtime
could do so too, but is not faster for it.
"""

from __future__ import annotations

from attar.models.simulated.qparams import ModelQParams
from attar.models.structure.site_kinds import SCORE_KINDS

FLOAT_SITES = ("query", "key", "value", "attention_probs")
"""Kinds of sites that stay float in all runtimes if they have zero points."""


def float_sites(qparams: ModelQParams, runtime: str) -> tuple[str, ...]:
    """Kinds of sites that stay float in a runtime."""
    scores = [site for site in qparams.sites if site.kind in SCORE_KINDS]
    if runtime != "openvino" or not scores or not all(site.is_symmetric for site in scores):
        return FLOAT_SITES
    return tuple(kind for kind in FLOAT_SITES if kind not in SCORE_KINDS)
