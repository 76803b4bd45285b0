"""Multiplies a chain of linear maps into one, in float64.

    W = Wₙ … W₁,   b = Wₙ … W₂ b₁ + … + bₙ         2w, 3w → 1w
    W = W₁ O,      b = W₁ b_O + b₁                 merged → attention_only: O is attention's output

With the norm's scale and shift: W (γ ⊙ x̂ + β) + b, so W ← W diag(γ), b ← b + W β, γ ← 1, β ← 0.
This is valid only if nothing but the matrix reads the norm. In a post-norm block the shortcut reads
it too.

The product is rounded to the model's precision once, at the end. Folding a folded model changes
nothing. Left out: an exact stock form for ReLU feed-forwards, relu(W x) − relu(−W x), which doubles
the work and would serve only programs that know no other form.
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
"""Random inputs on which a block is compared in float64."""


@dataclass(frozen=True)
class Folded:
    """A folded model, and how far its blocks are from those they were made of."""

    model: PreTrainedModel
    before: FfnSettings
    after: FfnSettings
    block_errors: dict[str, float]
    """Block → largest difference relative to the largest output, in float64; only blocks that were
    folded."""
    norms: tuple[str, ...]
    """Whose scale was multiplied into a matrix."""


def folded(model: PreTrainedModel, *, fold_norms: bool = False) -> Folded:
    """The model with each chain as one matrix; `model` stays as it is.

    Raises:
        ModelError: its feed-forwards are the family's own, so there is no chain.
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
    """The maps of a block that are one linear map; empty: its feed-forward is none, or its
    family's own."""
    if settings.row.encoder_only or not block.ffn.maps:
        return ()
    out = (block.attentions[-1].out,) if settings.row.follows_attention else ()
    return (*out, *block.ffn.maps)


def product(views: Sequence[LinearView]) -> tuple[Tensor, Tensor | None]:
    """W and b of maps in a row, the first one first, in float64; no b where no map has one."""
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
    """The norm that only a block's matrix reads; None: there is none, or its shift has no bias to
    go to."""
    if not block.ffn.inputs:
        return None
    reader = block.ffn.inputs[0]
    for site in anatomy_of(model).norm_sites:
        if site.consumers == block.ffn.inputs and site.is_closed and not site.shortcuts:
            has_room = site.norm.bias is None or reader.bias is not None
            return site.norm if has_room else None
    return None


def _fold_(views: Sequence[LinearView], matrix: LinearView, norm: NormView | None) -> float:
    """Write the product into a matrix.

    Returns: the error of the product in float64, on random inputs that passed the norm.
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
