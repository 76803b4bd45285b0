"""Merges chains of linear layers into one, in float64.

    W = Wₙ … W₁,   b = Wₙ … W₂ b₁ + … + bₙ         2w, 3w → 1w
    W = W₁ O,      b = W₁ b_O + b₁                 merged → attention_only: O is attention's output

With the norm's scale and shift: W (γ ⊙ x̂ + β) + b, so W ← W diag(γ), b ← b + W β, γ ← 1, β ← 0.
This is valid only if the matrix is the only reader of the norm. In a post-norm block, the residual
connection reads it too.

The product is rounded to the model's precision once, at the end. Folding is idempotent. Left out:
an exact form as a standard ReLU feed-forward, relu(W x) − relu(−W x), which doubles the cost and
would only help programs that do not support other forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.ffn_variants import FfnSettings
from attar.models.simpler_ffn import with_variant
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.blocks import Block
from attar.models.structure.chains import variant_of
from attar.models.structure.views import LinearView, NormView

PROBES = 256
"""Number of random inputs for comparing a block in float64."""


@dataclass(frozen=True)
class Folded:
    """A folded model, with the errors of its blocks."""

    model: PreTrainedModel
    before: FfnSettings
    after: FfnSettings
    block_errors: dict[str, float]
    """Folded block → largest difference relative to the largest output, in float64."""
    norms: tuple[str, ...]
    """Names of the folded norms."""


def folded(model: PreTrainedModel, *, fold_norms: bool = False) -> Folded:
    """Return a copy of the model with each chain merged into one matrix.

    Raises:
        ModelError: the model has standard feed-forwards, so there is no chain.
    """
    before = variant_of(model.config)
    if before is None:
        raise ModelError(
            "the model's feed-forwards are its family's own, with an activation between their "
            'maps, so there is nothing to fold; fold a model that was made with ffn = "2w", "3w" '
            'or "merged"'
        )
    target = before.row.folds_into
    after = before if target is None else FfnSettings(variant=target)
    smaller = with_variant(model, after)
    if model.device.type == "meta":
        return Folded(smaller, before, after, {}, ())
    errors: dict[str, float] = {}
    norms: list[str] = []
    with torch.no_grad():
        pairs = zip(anatomy_of(model).blocks, anatomy_of(smaller).blocks, strict=True)
        for old, new in pairs:
            views = chain_in(old, before)
            if not views:
                continue
            matrix = new.attentions[-1].out if before.row.follows_attention else new.ffn.maps[0]
            norm = _norm_to_fold(smaller, new) if fold_norms else None
            error = _fold_(views, matrix, norm)
            if target is not None:
                errors[old.fqn] = error
            norms += [] if norm is None else [norm.fqn]
    return Folded(smaller, before, after, errors, tuple(norms))


def chain_in(block: Block, settings: FfnSettings) -> tuple[LinearView, ...]:
    """The linear layers of a block that can be merged; empty if it has no feed-forward variant."""
    if settings.row.encoder_only or not block.ffn.maps:
        return ()
    out = (block.attentions[-1].out,) if settings.row.follows_attention else ()
    return (*out, *block.ffn.maps)


def product(views: Sequence[LinearView]) -> tuple[Tensor, Tensor | None]:
    """W and b of consecutive linear layers (first one first), in float64; b can be None."""
    first, *others = views
    weight = first.weight.double()
    bias = None if first.bias is None else first.bias.double()
    for view in others:
        step = view.weight.double()
        weight = step @ weight
        bias = None if bias is None else step @ bias
        if view.bias is not None:
            own = view.bias.double()
            bias = own if bias is None else bias + own
    return weight, bias


def _norm_to_fold(model: PreTrainedModel, block: Block) -> NormView | None:
    """The norm whose only reader is the block's matrix; None if there is none, or if there is no
    bias for its shift."""
    if not block.ffn.inputs:
        return None
    reader = block.ffn.inputs[0]
    for site in anatomy_of(model).norm_sites:
        if site.consumers == block.ffn.inputs and site.is_closed and not site.shortcuts:
            has_room = site.norm.bias is None or reader.bias is not None
            return site.norm if has_room else None
    return None


def _fold_(views: Sequence[LinearView], matrix: LinearView, norm: NormView | None) -> float:
    """Write the product to `matrix`.

    Returns: the error of the product in float64, on random inputs after the norm.
    """
    weight, bias = product(views)
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(PROBES, weight.shape[1], generator=generator, dtype=torch.float64)
    read = probes
    if norm is not None:
        scale, shift = norm.weight.double(), norm.bias
        read = probes * scale if shift is None else probes * scale + shift.double()
        bias = bias if shift is None or bias is None else bias + weight @ shift.double()
        weight = weight * scale
        norm.set_weight_(torch.ones_like(norm.weight))
        if shift is not None:
            shift.zero_()
    chained = read
    for view in views:
        own = None if view.bias is None else view.bias.double()
        chained = torch.nn.functional.linear(chained, view.weight.double(), own)
    given = torch.nn.functional.linear(probes, weight, bias)
    matrix.weight.copy_(weight)
    if matrix.bias is not None:
        matrix.bias.zero_() if bias is None else matrix.bias.copy_(bias)
    size = chained.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    return float((given - chained).abs().max() / size)
