"""The table of transform rules, which choose the equivalent transforms applied before quantization.

For each tensor, a rule returns a transform or None. The published rules apply to norms only, `auto`
also to the outputs of activation functions. The shared procedure: observe the tensors in one pass,
apply the rule to each, measure the chosen transforms, verify that they are equivalent
(`certificate`), and fold them into the model.

No published rule is best for every norm, so `auto` compares them at each site: every candidate is
simulated with quantized tensor and weights (`site_error`).

    candidates   none · gamma (norms) · smoothquant at three α · os_plus at every threshold
    chosen       the largest mean SQNR among candidates that are not worse than none under either
                 range; none wins ties

Left out: interactions between sites. Before rounding, transforms of different sites are
independent, and a search over their combinations would take a quantized pass for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.structure.anatomy import Anatomy, anatomy_of
from attar.models.structure.views import NormSite
from attar.numerics.affine import choose_qparams, fake_quantize
from attar.numerics.agreement import cosine, finite_or_none
from attar.quantization.calibration.calibrate import Batch, right_padded
from attar.quantization.config import QuantizeSettings, TransformRule
from attar.quantization.transforms.certificate import certify_
from attar.quantization.transforms.equivalent import (
    EquivalentTransform,
    TransformSite,
    reasons_to_leave,
    transform_sites,
)
from attar.quantization.transforms.gamma import gamma_transform
from attar.quantization.transforms.observed import ReadRows, observe
from attar.quantization.transforms.os_plus import os_plus_candidates, os_plus_transform
from attar.quantization.transforms.site_error import SiteError
from attar.quantization.transforms.smoothquant import smoothquant_transform
from attar.step import StepContext

ALPHAS = (0.25, 0.5, 0.75)


def choose(
    site: TransformSite, rows: ReadRows, error: SiteError
) -> tuple[str, EquivalentTransform | None]:
    """Name and transform of the best rule; ("none", None) if no transform helps."""
    nothing = EquivalentTransform.of_scale(torch.ones(site.num_channels))
    floor = error.sqnr(nothing)
    best, name, chosen = floor.mean, "none", None
    for rule, candidate in _candidates(site, rows):
        found = error.sqnr(candidate)
        if found.mean > best and found.is_no_worse_than(floor):
            best, name, chosen = found.mean, rule, candidate
    return name, chosen


def _candidates(site: TransformSite, rows: ReadRows) -> Iterator[tuple[str, EquivalentTransform]]:
    if isinstance(site, NormSite):
        yield "gamma", gamma_transform(site)
    for alpha in ALPHAS:
        yield "smoothquant", smoothquant_transform(site, rows, alpha)
    for candidate in os_plus_candidates(site, rows):
        yield "os_plus", candidate


COSINE_BITS = 6
"""Bit width at which the literature reports the cosine of a norm's output and its rounding."""

Transform = Callable[
    [PreTrainedModel, Sequence[Batch], QuantizeSettings, StepContext], Mapping[str, Any]
]
"""Transforms the model in place, leaving its outputs unchanged; returns details for the metrics,
including the certificate."""
Choice = tuple[str, EquivalentTransform | None]
Rule = Callable[[Any, ReadRows, SiteError, QuantizeSettings], Choice]
"""(site, observed rows, error function, settings) → name of the rule and the transform."""


def _move_(
    rule: Rule,
    sites_in: Callable[[Anatomy], Iterable[TransformSite]],
    model: PreTrainedModel,
    batches: Sequence[Batch],
    config: QuantizeSettings,
    context: StepContext,
) -> Mapping[str, Any]:
    """Apply `rule` to every site of `model` and fold the chosen transforms."""
    batches = [right_padded(batch) for batch in batches]
    sites = list(sites_in(anatomy_of(model)))
    left = reasons_to_leave(model, sites)
    observed = observe(model, [site for site in sites if site.name not in left], batches, context)
    widths = {"weight_bits": _weight_bits(config), "activation_bits": config.activation_bits}
    transforms: dict[str, EquivalentTransform] = {}
    details: dict[str, list[dict[str, Any]]] = {"norms": [], "activations": []}
    with torch.no_grad():
        for site in sites:
            sort = "norm" if isinstance(site, NormSite) else "activation"
            row: dict[str, Any] = {sort: site.name, "stack": site.stack, "block": site.block}
            details[f"{sort}s"].append(row)
            if site.name in left:
                row |= {"rule": "none", "left": left[site.name]}
                continue
            rows = observed[site.name]
            error = SiteError(site, rows.rows, **widths)
            name, transform = rule(site, rows, error, config)
            if transform is not None:
                transforms[site.name] = transform
            row |= {"rule": name, **_measured(error, transform)}
    return {**details, "certificate": certify_(model, transforms, batches)}


def at_norms(rule: Rule) -> Transform:
    """Apply a rule to norms only, as published."""
    return partial(_move_, rule, lambda anatomy: anatomy.norm_sites)


def _os_plus_at_norms(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    config: QuantizeSettings,
    context: StepContext,
) -> Mapping[str, Any]:
    """OS+ at norms, with a warning about sites without a bias, where the shift is omitted."""
    sites = anatomy_of(model).norm_sites
    fixed = sum(not site.can_shift for site in sites)
    if fixed:
        context.progress.warn(
            f"{context.name}: os_plus moves no shift at {fixed} of {len(sites)} norms, because "
            "they or the layers that read them have no bias; it only searches scales there"
        )
    rule = at_norms(lambda site, rows, error, _: ("os_plus", os_plus_transform(site, rows, error)))
    return rule(model, batches, config, context)


def _weight_bits(config: QuantizeSettings) -> int:
    """The expected width of most weights. Sensitivities are not known yet, so for a budget this is
    its average bits, or the recipe's width if the budget does not limit bits."""
    budget = config.budget
    if budget is None or budget.average_bits is None:
        return config.weight_bits
    return round(budget.average_bits)


def _measured(error: SiteError, transform: EquivalentTransform | None) -> dict[str, Any]:
    """Metrics of a tensor and its readers, before and after a transform."""
    nothing = EquivalentTransform.of_scale(torch.ones(error.rows.shape[1]))
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
    """Cosine of a tensor and its rounding at `COSINE_BITS`, with the full range of values."""
    low, high = x.aminmax()
    return cosine(x, fake_quantize(x, choose_qparams(low, high, COSINE_BITS, symmetric=False)))


TRANSFORMS: Mapping[TransformRule, Transform] = {
    "none": lambda model, batches, config, context: {},
    "gamma": at_norms(lambda site, *_: ("gamma", gamma_transform(site))),
    "smoothquant": at_norms(
        lambda site, rows, _, config: (
            "smoothquant",
            smoothquant_transform(site, rows, config.smoothquant_alpha),
        )
    ),
    "os_plus": _os_plus_at_norms,
    "auto": partial(
        _move_, lambda site, rows, error, _: choose(site, rows, error), transform_sites
    ),
}
