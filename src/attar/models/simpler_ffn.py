"""Make a model with simpler feed-forwards from another model's weights.

Everything except the feed-forwards is copied. A chain that is a linear map of the feed-forward's
input is initialized by least squares between inputs and outputs of the old feed-forward on real
tokens; all blocks are measured in one pass over the old model (`numerics.linear_fit`). Other chains
are initialized at random.

Not supported: fitting a block on the inputs it gets from blocks that are already replaced, which
would take one pass over the texts per block.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.architecture import buildable_attention, prepare_
from attar.models.config import ChangedModel
from attar.models.ffn_variants import FIELD, FfnSettings
from attar.models.narrowing.importance import Batch, watch
from attar.models.narrowing.parts import ffn_of, parts_of
from attar.models.structure.anatomy import anatomy_of, family_of
from attar.models.structure.blocks import Block
from attar.models.structure.chains import stacks_with, stock_class, variant_class, variant_of
from attar.models.structure.views import ChainView
from attar.numerics.linear_fit import LinearFit, chain_of
from attar.seeds import derive_seed

RIDGE = 1e-6
"""Relative to the mean variance of a channel: just enough for channels that never vary."""


def with_simpler_ffn(
    model: PreTrainedModel,
    reference: ChangedModel,
    batches: Iterable[Batch] | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """The model with the feed-forwards of a reference; `model` is not changed.

    Args:
        batches: inputs of the model, on which a linear chain is fitted.
        seed: for the weights of new maps.

    Raises:
        ModelError: the feed-forward is already a variant, or there is no data to fit it.
    """
    settings = reference.ffn_settings
    assert settings is not None
    before = variant_of(model.config)
    if before is not None:
        raise ModelError(
            f"{reference.source} has the feed-forward {before.variant!r} already, and only the "
            "family's standard one can be replaced; start from the original model"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "simpler feed-forward"))
        simpler = with_variant(model, settings)
    if not reference.fits_ffn or model.device.type == "meta":
        return simpler
    if batches is None:
        raise ModelError(
            f"{reference.source}: least-squares initialization needs texts to be fitted "
            'to; name data, or set ffn_start = "random"'
        )
    fits = fitted(model, settings, batches)
    generator = torch.Generator().manual_seed(derive_seed(seed, "chains"))
    with torch.no_grad():
        for block in anatomy_of(simpler).blocks:
            if block.fqn in fits:
                _start_(block, fits[block.fqn], generator)
    return simpler


def with_variant(model: PreTrainedModel, settings: FfnSettings) -> PreTrainedModel:
    """A variant with random new maps, and all other weights of `model`."""
    config: Any = copy.deepcopy(model.config)
    setattr(config, FIELD, settings.plain())
    model_class: Any = variant_class(stock_class(model))
    attention: Any = model.config._attn_implementation
    with model.device:
        simpler: PreTrainedModel = model_class._from_config(
            config, attn_implementation=buildable_attention(model_class, attention)
        )
    prepare_(simpler, attention)
    if model.device.type != "meta":
        take_shared_(simpler, model.state_dict())
    return simpler.eval()


def take_shared_(model: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Load every tensor that a variant shares with another form of the model."""
    own = model.state_dict()
    chains = {
        (f"{fqn.removesuffix('.maps.0')}.{kind}", f"{fqn}.{kind}")
        for fqn in (a.out.fqn for block in anatomy_of(model).blocks for a in block.attentions)
        if fqn.endswith(".maps.0")
        for kind in ("weight", "bias")
    }
    moved = {new: state[old] for old, new in chains if old in state}
    shared = {
        name: tensor
        for name, tensor in state.items()
        if name in own and tensor.shape == own[name].shape
    }
    model.load_state_dict(shared | moved, strict=False)


def fitted(
    model: PreTrainedModel, settings: FfnSettings, batches: Iterable[Batch]
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Block → the best linear map in place of its feed-forward, and its bias.

    Raises:
        ModelError: there are no batches, or the feed-forward is already a variant.
    """
    parts = parts_of(model)
    names = {row.name for row in stacks_with(family_of(model).stacks, settings)}
    fits: dict[str, LinearFit] = {}
    watched: list[tuple[Any, bool, str, Any]] = []
    for stack in parts.anatomy.stacks:
        for block in stack.blocks if stack.name in names else ():
            fit = fits[block.fqn] = LinearFit()
            read, give = _pair(fit)
            ffn = ffn_of(block)
            watched.append((ffn.inputs[0].module, True, stack.name, read))
            watched.append((ffn.down.module, False, stack.name, give))
    watch(parts, batches, watched)
    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    for block in parts.anatomy.blocks:
        if block.fqn in fits:
            has_bias = ffn_of(block).down.bias is not None
            if not fits[block.fqn].count:
                raise ModelError("least squares needs at least one text; give it data with rows")
            found[block.fqn] = fits[block.fqn].solve(ridge=RIDGE, has_bias=has_bias)
    return found


def _pair(fit: LinearFit) -> tuple[Any, Any]:
    """Hooks for a feed-forward's input, and for its output afterwards."""
    seen: list[Tensor] = []

    def real(tensor: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None and mask.shape == tensor.shape[:2]:
            return tensor[mask.bool()]
        return tensor.reshape(-1, tensor.shape[-1])

    def read(tensor: Tensor, mask: Tensor | None) -> None:
        seen[:] = [real(tensor, mask)]

    def give(tensor: Tensor, mask: Tensor | None) -> None:
        fit.add(seen.pop(), real(tensor, mask))

    return read, give


def _start_(block: Block, fit: tuple[Tensor, Tensor | None], generator: torch.Generator) -> None:
    assert isinstance(block.ffn, ChainView)
    weight, bias = fit
    views = block.ffn.maps
    maps = chain_of(weight.cpu(), [view.out_features for view in views[:-1]], generator)
    for view, tensor in zip(views, maps, strict=True):
        view.weight.copy_(tensor)
        if view.bias is not None:
            view.bias.zero_()
    if bias is not None and views[-1].bias is not None:
        views[-1].bias.copy_(bias)
