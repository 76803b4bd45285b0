"""What the parts of a model cost: parameters, and operations of a forward pass, each counted once.

    embedding            tables, and a map behind narrower ones; looking a row up is no product
    <stack>.attention    its maps, tables of relative positions, norms on heads, and the products of
                         queries, keys, probabilities and values; with cross-attention in a decoder
    <stack>.ffn          the maps of the feed-forward, or of the variant in its place
    <stack>.norms        every norm over hidden states; no products
    head                 what is left: the head, and a table of words that is not the embedding's

A tied table belongs to the embedding; the product with it belongs to the head. So parameters add up
to `num_params`, and operations to `flops`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.cost import flops
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.blocks import Stack
from attar.models.structure.sites import POSITION_BIAS
from attar.models.structure.views import AttentionView, LinearView


@dataclass(frozen=True)
class PartCost:
    """Of one part."""

    num_params: int
    flops: int

    def as_json(self) -> dict[str, int]:
        """As a result keeps it."""
        return {"num_params": self.num_params, "flops": self.flops}


def cost_by_part(model: PreTrainedModel, tokens: int) -> dict[str, PartCost]:
    """Part → parameters, and operations of one text of so many tokens; a decoder behind an encoder
    reads as many.

    Raises:
        ModelError: the family has no row, or its attention is not known.
    """
    anatomy = anatomy_of(model)
    attentions = [a for block in anatomy.blocks for a in block.attentions]
    if not all(a.is_plain for a in attentions):
        raise ModelError(f"the parts of a {anatomy.family} model cannot be counted one by one")
    left = {id(p): p.numel() for p in model.parameters()}

    def taken(modules: Iterable[nn.Module]) -> int:
        return sum(left.pop(id(p), 0) for module in modules for p in module.parameters())

    found: dict[str, PartCost] = {}
    tables = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and not name.endswith(POSITION_BIAS)
    ]
    maps = [s.embedding_map for s in anatomy.stacks if s.embedding_map is not None]
    found["embedding"] = PartCost(
        taken([*tables, *(view.module for view in maps)]), _flops(maps, tokens)
    )
    for stack in anatomy.stacks:
        attention = [a for block in stack.blocks for a in block.attentions]
        of_attention = [v for a in attention for v in (a.q, a.k, a.v, a.out)]
        ffn = [view for block in stack.blocks for view in block.ffn.maps]
        pairs = sum(_pair_flops(a, tokens) for a in attention)
        norms = [norm.module for norm in _norms(stack)]
        # MPNet's norm lies inside the module of its attention: norms are taken first
        norm_params = taken(norms)
        inside = [view.module for view in of_attention]
        inside += [norm.module for a in attention for norm in a.head_norms]
        inside += _position_tables(model, stack)
        found[f"{stack.name}.attention"] = PartCost(
            taken(inside), _flops(of_attention, tokens) + pairs
        )
        found[f"{stack.name}.ffn"] = PartCost(
            taken(view.module for view in ffn), _flops(ffn, tokens)
        )
        found[f"{stack.name}.norms"] = PartCost(norm_params, 0)
    counted = sum(part.flops for part in found.values())
    found["head"] = PartCost(sum(left.values()), flops(model, 1, tokens) - counted)
    return found


def _flops(views: Iterable[LinearView], tokens: int) -> int:
    return sum(2 * tokens * view.in_features * view.out_features for view in views)


def _pair_flops(a: AttentionView, tokens: int) -> int:
    return 2 * 2 * a.heads * tokens * tokens * a.head_size


def _norms(stack: Stack) -> list[Any]:
    norms = [norm for block in stack.blocks for norm in block.norms]
    return [norm for norm in (stack.embedding_norm, *norms, stack.final_norm) if norm is not None]


def _position_tables(model: PreTrainedModel, stack: Stack) -> list[nn.Module]:
    return [] if stack.shared_bias is None else [model.get_submodule(stack.shared_bias)]
