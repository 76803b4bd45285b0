"""Install variants of the feed-forward in transformers' models: `variant_class`.

A variant consists of real modules in the places named by the family's row, so that dropout, norms
and the residual sum remain the block's own code:

    a module that is only the feed-forward (`FfnRow.whole`)       → the chain
    a block that calls its maps one by one                        → up, act: Identity,
                                                                    down: the chain
    a norm that is no longer read, or has no input                → Identity
    attention's output map, followed by the feed-forward's        → a chain of both

Dropout between activation and `down` then applies to the chain's input, or is removed with its
module. There is no dropout between linear maps; with it, training and the folded model would agree
only in expectation.

New maps are initialized from N(0, 1/fan_in), biases with zeros.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attar.errors import ModelError
from attar.models.ffn_variants import FIELD, FfnSettings, Variant, settings_in
from attar.models.structure.families import FAMILIES, without_views
from attar.models.structure.rows import FfnRow, StackRow


class LinearChain(nn.Module):
    """x ↦ Wₙ … W₁ x, or its relu."""

    def __init__(self, maps: Iterable[nn.Module], *, has_relu: bool = False) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)
        self.relu = nn.ReLU() if has_relu else None

    def forward(self, x: Tensor) -> Tensor:
        for linear in self.maps:
            x = linear(x)
        return x if self.relu is None else self.relu(x)


class NoFfn(nn.Module):
    """Adds nothing to the residual sum."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


def variant_of(config: Any) -> FfnSettings | None:
    """The variant of a model, from its transformers config; None: the family's own feed-forward."""
    return settings_in({FIELD: getattr(config, FIELD, None)}, "config")


@cache
def variant_class(stock: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A subclass of a transformers class that builds the variant in its config; saved under the
    original name.

    Loading, meta models and copies then need no special handling of variants.
    """

    class WithVariant(stock):
        stock_class = stock

        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            install_(cast(PreTrainedModel, self))

    return named_like(stock, WithVariant)


def named_like(stock: type[PreTrainedModel], made: type[Any]) -> type[PreTrainedModel]:
    """Give a subclass the name under which transformers saves it and looks up attention code."""
    made.__name__, made.__qualname__ = stock.__name__, stock.__qualname__
    made.__module__ = stock.__module__
    return made


def stock_class(model: PreTrainedModel) -> type[PreTrainedModel]:
    """The transformers class of a model, whether it is a variant or not."""
    return getattr(type(model), "stock_class", type(model))


def install_(model: PreTrainedModel) -> None:
    """Replace the feed-forwards of a stock model with the variant in its config.

    Raises:
        ModelError: the family has no row, or no encoder although one is needed.
    """
    settings = variant_of(model.config)
    if settings is None:
        return
    model_type = model.config.model_type
    if model_type not in FAMILIES:
        raise ModelError(without_views(model_type))
    for row in stacks_with(FAMILIES[model_type].stacks, settings):
        blocks: Any = model.base_model.get_submodule(row.blocks)
        for block in blocks:
            _install_in_block_(block, row, settings)


def stacks_with(stacks: tuple[StackRow, ...], settings: FfnSettings) -> tuple[StackRow, ...]:
    """The stacks that a variant changes.

    Raises:
        ModelError: the variant is only for encoders of encoder-decoders, and the family has no such
            stack.
    """
    if not settings.row.encoder_only:
        return stacks
    if len(stacks) == 1:
        raise ModelError(
            f'ffn = "{settings.variant}" leaves the decoder as it is, and this family has only '
            f'one stack, its {stacks[0].name}; use ffn = "skip"'
        )
    return tuple(row for row in stacks if row.name == "encoder")


def lost_norms(row: StackRow, ffn: FfnRow, variant: Variant) -> tuple[str, ...]:
    """Names, relative to a block, of the norms that a variant drops."""
    if variant.lost_norm == "between":
        return ((ffn if row.is_pre_norm else row.cross or row.attention).norm,)
    is_unread = row.is_pre_norm and variant.maps == 0
    lost = (ffn.norm,) if variant.lost_norm == "own" or is_unread else ()
    is_empty = variant.maps == 0 or variant.follows_attention
    return (*lost, ffn.post_norm) if ffn.post_norm and is_empty else lost


def _install_in_block_(block: Any, row: StackRow, settings: FfnSettings) -> None:
    variant = settings.row
    ffn = next(ffn for ffn in row.ffns if _has(block, ffn.up.partition("[")[0]))
    down = block.get_submodule(ffn.down)
    hidden, own_width = _sizes(down)[::-1]
    inner = own_width if settings.expansion is None else round(settings.expansion * hidden)
    widths = [hidden, *[inner] * (variant.maps - 1), hidden][: variant.maps + 1]
    maps = [_new_linear(i, o, has_bias=down.bias is not None) for i, o in pairwise(widths)]
    if variant.follows_attention:
        out = (row.cross or row.attention).out
        block.set_submodule(out, LinearChain([block.get_submodule(out), *maps]))
        maps = []
    chain = LinearChain(maps, has_relu=variant.has_relu) if maps else NoFfn()
    block.set_submodule(ffn.whole or ffn.down, chain)
    if ffn.whole is None:
        for name in (ffn.up, ffn.act):
            block.set_submodule(name, nn.Identity())
    for name in lost_norms(row, ffn, variant):
        block.set_submodule(name, nn.Identity())
    for owner in block.modules():
        if any(isinstance(child, LinearChain | NoFfn) for child in owner.children()):
            # transformers initializes what a file lacks, such as a head, and would look in the
            # owner of a chain for the weights of its stock maps
            owner._is_hf_initialized = True


def _has(block: nn.Module, name: str) -> bool:
    try:
        block.get_submodule(name)
    except AttributeError:
        return False
    return True


def _sizes(linear: Any) -> tuple[int, int]:
    """(in, out) features."""
    if isinstance(linear, Conv1D):
        return linear.nx, linear.nf
    return linear.in_features, linear.out_features


def _new_linear(in_features: int, out_features: int, *, has_bias: bool) -> nn.Linear:
    linear = nn.Linear(in_features, out_features, bias=has_bias)
    nn.init.normal_(linear.weight, std=in_features**-0.5)
    if has_bias:
        nn.init.zeros_(linear.bias)
    return linear
