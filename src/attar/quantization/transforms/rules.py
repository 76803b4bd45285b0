"""The table of transform rules: what is moved between layers before anything is rounded.

A rule answers, for one tensor, with a transform or with none. The published rules are asked about
norms only, `auto` about the outputs of activation functions too. What they share is here: one pass
shows the tensors, the rule is asked one by one, what it chose is measured, proven equivalent
(`certificate`) and folded into the model.

`auto` tries the rules on the spot, because none is right for every norm: each candidate is folded
on paper, rounded as it will be rounded, and compared (`site_error`).

    candidates   nothing · gamma (norms) · smoothquant at three α · os_plus at every threshold
    chosen       of those that are worse than nothing under neither range, the one with the largest
                 mean of decibels; nothing wins a tie

Left out: what sites do to each other. Transforms of different sites share no number before
rounding, and a search over their combinations would cost a quantized pass for each.
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
    """The winning rule's name, and its transform; ("none", None) where nothing helps."""
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
"""The width at which the literature compares a norm's output with its rounded self."""

Transform = Callable[
    [PreTrainedModel, Sequence[Batch], QuantizeSettings, StepContext], Mapping[str, Any]
]
"""Changes the model in place without changing what it computes; returns details for the metrics,
the certificate among them."""
Choice = tuple[str, EquivalentTransform | None]
Rule = Callable[[Any, ReadRows, SiteError, QuantizeSettings], Choice]
"""(site, what its readers are given, their error, settings) → the rule's name and the transform."""


def _move_(
    rule: Rule,
    sites_in: Callable[[Anatomy], Iterable[TransformSite]],
    model: PreTrainedModel,
    batches: Sequence[Batch],
    config: QuantizeSettings,
    context: StepContext,
) -> Mapping[str, Any]:
    """Ask `rule` at every site of `model` and fold what it chose."""
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
    """A rule that is asked about norms alone, as the published ones are."""
    return partial(_move_, rule, lambda anatomy: anatomy.norm_sites)


def _os_plus_at_norms(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    config: QuantizeSettings,
    context: StepContext,
) -> Mapping[str, Any]:
    """Says where there is no bias that could take a shift: half of the method is left out there."""
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
    """The width that most weights will have. A transform comes before sensitivities, so a budget is
    known by its mean alone; one that says nothing of bits leaves the recipe's width."""
    budget = config.budget
    if budget is None or budget.average_bits is None:
        return config.weight_bits
    return round(budget.average_bits)


def _measured(error: SiteError, transform: EquivalentTransform | None) -> dict[str, Any]:
    """What a transform does to a tensor and to its readers, before and after."""
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
    """Of a tensor and its rounded self at `COSINE_BITS`, the range being that of all values."""
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
