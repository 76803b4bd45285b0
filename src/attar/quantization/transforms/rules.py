"""The table of transform rules: what is moved across norms before anything is rounded.

A rule answers, for one norm, with a transform or with none. What is common to all of them is here:
one pass shows what norms give, the rule is asked norm by norm, what it chose is measured, proven
equivalent (`certificate`) and folded into the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.views import NormSite
from attar.numerics.affine import choose_qparams, fake_quantize
from attar.numerics.agreement import cosine, finite_or_none
from attar.quantization.calibration.calibrate import right_padded
from attar.quantization.config import QuantizeSettings, TransformRule
from attar.quantization.transforms.certificate import certify_
from attar.quantization.transforms.choose import choose
from attar.quantization.transforms.equivalent import EquivalentTransform, reasons_to_leave
from attar.quantization.transforms.gamma import gamma_transform
from attar.quantization.transforms.observed import ReadRows, observe
from attar.quantization.transforms.os_plus import os_plus_transform
from attar.quantization.transforms.site_error import SiteError
from attar.quantization.transforms.smoothquant import smoothquant_transform
from attar.step import StepContext

COSINE_BITS = 6
"""The width at which the literature compares a norm's output with its rounded self."""

Batch = Mapping[str, Tensor]
Transform = Callable[
    [PreTrainedModel, Sequence[Batch], QuantizeSettings, StepContext], Mapping[str, Any]
]
"""Changes the model in place without changing what it computes; returns details for the metrics,
the certificate among them."""
Choice = tuple[str, EquivalentTransform | None]
Rule = Callable[[NormSite, ReadRows, SiteError, QuantizeSettings], Choice]
"""(norm, what its readers are given, their error, settings) → the rule's name and the transform."""


def _gamma(site: NormSite, rows: ReadRows, error: SiteError, config: QuantizeSettings) -> Choice:
    return "gamma", gamma_transform(site)


def _smoothquant(
    site: NormSite, rows: ReadRows, error: SiteError, config: QuantizeSettings
) -> Choice:
    return "smoothquant", smoothquant_transform(site, rows, config.smoothquant_alpha)


def _os_plus(site: NormSite, rows: ReadRows, error: SiteError, config: QuantizeSettings) -> Choice:
    return "os_plus", os_plus_transform(site, rows, error)


def _auto(site: NormSite, rows: ReadRows, error: SiteError, config: QuantizeSettings) -> Choice:
    return choose(site, rows, error)


def _none(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    config: QuantizeSettings,
    context: StepContext,
) -> Mapping[str, Any]:
    return {}


def _move_(
    rule: Rule,
    model: PreTrainedModel,
    batches: Sequence[Batch],
    config: QuantizeSettings,
    context: StepContext,
) -> Mapping[str, Any]:
    """Ask `rule` at every norm of `model` and fold what it chose."""
    batches = [right_padded(batch) for batch in batches]
    anatomy = anatomy_of(model)
    left = reasons_to_leave(model, anatomy)
    sites = [site for site in anatomy.norm_sites if site.norm.fqn not in left]
    observed = observe(model, sites, batches, context)
    transforms: dict[str, EquivalentTransform] = {}
    details: list[dict[str, Any]] = []
    with torch.no_grad():
        for site in anatomy.norm_sites:
            where = {"norm": site.norm.fqn, "stack": site.stack, "block": site.block}
            if site.norm.fqn in left:
                details.append({**where, "rule": "none", "left": left[site.norm.fqn]})
                continue
            rows = observed[site.norm.fqn]
            error = SiteError(
                site,
                rows.rows,
                weight_bits=_weight_bits(config),
                activation_bits=config.activation_bits,
            )
            name, transform = rule(site, rows, error, config)
            if transform is not None:
                transforms[site.norm.fqn] = transform
            details.append({**where, "rule": name, **_measured(error, transform)})
    return {"norms": details, "certificate": certify_(model, transforms, batches)}


def _weight_bits(config: QuantizeSettings) -> int:
    """The width that most weights will have. A transform comes before sensitivities, so a budget is
    known by its mean alone; one that says nothing of bits leaves the recipe's width."""
    budget = config.budget
    if budget is None or budget.average_bits is None:
        return config.weight_bits
    return round(budget.average_bits)


def _measured(error: SiteError, transform: EquivalentTransform | None) -> dict[str, Any]:
    """What a transform does to a norm's readers and to its output, before and after."""
    nothing = EquivalentTransform.of_scale(torch.ones_like(error.site.norm.weight))
    after = nothing if transform is None else transform
    sqnr = [error.sqnr(found) for found in (nothing, after)]
    cosines = [_cosine(found.forward(error.rows)) for found in (nothing, after)]
    return {
        "sqnr_before_db": finite_or_none(sqnr[0].mean),
        "sqnr_after_db": finite_or_none(sqnr[1].mean),
        "clipped_sqnr_before_db": finite_or_none(sqnr[0].clipped),
        "clipped_sqnr_after_db": finite_or_none(sqnr[1].clipped),
        "cosine_before": cosines[0],
        "cosine_after": cosines[1],
        "largest_scale": float(after.scale.abs().max()),
        "smallest_scale": float(after.scale.abs().min()),
        "largest_shift": float(after.shift.abs().max()),
    }


def _cosine(x: Tensor) -> float:
    """Of a tensor and its rounded self at `COSINE_BITS`, the range being that of all values."""
    low, high = x.aminmax()
    return cosine(x, fake_quantize(x, choose_qparams(low, high, COSINE_BITS, symmetric=False)))


TRANSFORMS: Mapping[TransformRule, Transform] = {
    "none": _none,
    "gamma": partial(_move_, _gamma),
    "smoothquant": partial(_move_, _smoothquant),
    "os_plus": partial(_move_, _os_plus),
    "auto": partial(_move_, _auto),
}
