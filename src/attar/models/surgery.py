"""Make a smaller model from whole blocks of a larger one.

Everything except the blocks is copied, so keeping all blocks gives the same outputs. Three things
depend on a block's number and are corrected: the count in the config, `layer_idx` (where a
decoder's cache stores the block's keys), and T5's table of relative positions, which belongs to
block 0 and is used by all blocks. In an encoder-decoder, the same block numbers are kept in both
stacks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.config import ChangedModel
from attar.models.narrowing.importance import Batch
from attar.models.narrowing.narrow import narrowed
from attar.models.simpler_ffn import with_simpler_ffn
from attar.models.structure.anatomy import anatomy_of, with_blocks
from attar.models.structure.blocks import Stack
from attar.models.structure.ports import configs_of
from attar.models.structure.rows import not_kept

OF_BLOCKS = ("keep_blocks", "hidden_size", "intermediate_size", "num_attention_heads", "ffn")
"""Settings of a reference that change a model's blocks."""


def changed(
    model: PreTrainedModel,
    reference: ChangedModel,
    batches: Iterable[Batch] | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Apply the changes of a reference to a model: first blocks, then widths, then simpler
    feed-forwards.

    Args:
        batches: inputs of the model for importance measurements; see `narrowed`.
        seed: for the weights of new maps.

    Raises:
        ModelError: the model does not have the parts to keep.
    """
    asked = [name for name in OF_BLOCKS if getattr(reference, name) is not None]
    if asked:
        with_blocks(model, f"{asked[0]} has nothing to change; leave it out")
    if reference.keep_blocks is not None:
        model = keep_blocks(model, reference.keep_blocks)
    batches = None if batches is None else list(batches)
    if reference.is_narrower:
        model = narrowed(model, reference, batches)
    if reference.ffn is not None:
        model = with_simpler_ffn(model, reference, batches, seed)
    return model


def keep_blocks(model: PreTrainedModel, blocks: Sequence[int]) -> PreTrainedModel:
    """A new model with copies of the given blocks, numbered from 0; `model` is not changed.

    Args:
        blocks: distinct and increasing; in an encoder-decoder they apply to both stacks.

    Raises:
        ModelError: a block does not exist, the order is not increasing, or the family is not
            supported.
    """
    anatomy = anatomy_of(model)
    for stack in anatomy.stacks:
        _check_blocks(stack, blocks)
        _check_first(stack, blocks)
    _check_scaling(model, blocks)
    dropped = [block for block in anatomy.blocks if block.index not in blocks]
    # deepcopy treats objects in the memo as already copied, so dropped blocks are never copied
    memo: dict[int, Any] = {id(block.module): nn.Identity() for block in dropped}
    smaller = copy.deepcopy(model, memo)
    for stack in anatomy.stacks:
        _shorten_(smaller, stack, blocks)
    _recount_(smaller, anatomy.stacks, blocks)
    return smaller


def _check_blocks(stack: Stack, blocks: Sequence[int]) -> None:
    count = len(stack.blocks)
    if not blocks or list(blocks) != sorted(set(blocks)):
        raise ModelError(f"keep_blocks must be distinct and increasing, got {list(blocks)}")
    if problem := not_kept(blocks, count, stack.name):
        raise ModelError(problem)


def _check_first(stack: Stack, blocks: Sequence[int]) -> None:
    """ModernBERT's first block, and only this one, has no norm before its attention."""
    if stack.row.first_norm is not None and blocks[0] != 0:
        raise ModelError(
            f"keep_blocks {list(blocks)} leaves block 0 out, the only one of this family that "
            f"reads the embeddings' norm; keep it: {[0, *blocks]}"
        )


def _check_scaling(model: PreTrainedModel, blocks: Sequence[int]) -> None:
    """GPT-2 can divide scores by the block's number, so moving a block would change its
    function."""
    moved = list(blocks) != list(range(len(blocks)))
    if moved and getattr(model.config, "scale_attn_by_inverse_layer_idx", False):
        raise ModelError(
            f"keep_blocks {list(blocks)} moves blocks of a model whose attention is scaled by the "
            "block's number (scale_attn_by_inverse_layer_idx); keep the first blocks, "
            f"{list(range(len(blocks)))}"
        )


def _shorten_(smaller: PreTrainedModel, stack: Stack, blocks: Sequence[int]) -> None:
    """Reduce one stack of the copy to the kept blocks, and renumber them."""
    parent, _, name = stack.blocks_fqn.rpartition(".")
    holder = smaller.get_submodule(parent)
    copies: Any = getattr(holder, name)
    kept = [copies[block] for block in blocks]
    for index, block in enumerate(kept):
        for module in block.modules():
            if getattr(module, "layer_idx", None) is not None:
                module.layer_idx = index
    owner, _, bias = (stack.shared_bias or "").rpartition(".")
    inside = owner.removeprefix(f"{stack.blocks[0].fqn}.")
    if stack.shared_bias is not None and inside != owner and blocks[0] != 0:
        # the new first block gets the table of relative positions of the dropped one
        giver, taker = stack.blocks[0].module.get_submodule(inside), kept[0].get_submodule(inside)
        setattr(taker, bias, copy.deepcopy(getattr(giver, bias)))
        taker.has_relative_attention_bias = True
    setattr(holder, name, nn.ModuleList(kept))


def _recount_(smaller: PreTrainedModel, stacks: Sequence[Stack], blocks: Sequence[int]) -> None:
    """Set the new number of blocks in every config of the model (T5's stacks have their own)."""
    for config in configs_of(smaller):
        for field in {stack.row.num_blocks for stack in stacks}:
            if hasattr(config, field):
                setattr(config, field, len(blocks))
        layer_types = getattr(config, "layer_types", None)
        if layer_types:
            config.layer_types = [layer_types[block] for block in blocks]
