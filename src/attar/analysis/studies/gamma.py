"""`gamma`: the scales and biases of every norm, and their outlier dimensions.

    outlier: |γ_j − mean(γ)| > 3 · std(γ)

γ scales a dimension in every token, so no text is needed. An outlier in a single norm means little;
the same dimension in most norms is an emergent outlier.
Source: Outlier Suppression (Wei et al. 2022), section 3; EOFD (2025), appendix H.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attar.analysis.config import GammaStep
from attar.analysis.outlying.criteria import by_deviation, standardised
from attar.analysis.outlying.hidden import PlacedNorm, norms_of
from attar.analysis.subject import Finding, open_model
from attar.step import StepContext


def gamma(config: GammaStep, context: StepContext) -> Finding:
    """γ and β of every norm.

    Raises:
        ModelError: the family is unknown.
    """
    loaded = open_model(config.model, context)
    norms = norms_of(loaded.model)
    rows = [_row(norm) for norm in norms]
    facts = {
        "norms": len(norms),
        "hidden_size": len(norms[0].gamma),
        "norms_with_bias": sum(norm.beta is not None for norm in norms),
    }
    return Finding(facts, {"rows": rows}, {"gamma": {row["norm"]: row["gamma"] for row in rows}})


def _row(norm: PlacedNorm) -> dict[str, Any]:
    outlying = by_deviation(standardised(norm.gamma).abs()).dimensions
    return {
        **norm.place,
        "gamma": _figures(norm.gamma, outlying),
        "beta": None if norm.beta is None else _figures(norm.beta, outlying),
        "dimensions": outlying,
    }


def _figures(values: Tensor, outlying: list[int]) -> dict[str, Any]:
    """Statistics of values (D,), and the values of the norm's outlier dimensions."""
    return {
        "mean": float(values.mean()),
        "std": float(values.std(correction=0)),
        "min": float(values.min()),
        "max": float(values.max()),
        "outliers": {str(j): float(values[j]) for j in outlying},
    }
