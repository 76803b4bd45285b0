"""Parameters and FLOPs of a model's parts, each counted once.

    embeddings           tables, and a map after narrower ones; a lookup is not a product
    <stack>.attention    its maps, and the products of queries, keys, probabilities and values
    <stack>.cross_attention    the same, over the encoder's output
    <stack>.ffn          the maps of the feed-forward, or of the variant in its place
    <stack>.norms        no products
    head                 everything else, including the product with a tied table

Parameters add up to `num_params`, operations to `flops`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.cost import attention_flops, flops_by_part, has_parts, params_by_part
from attar.models.structure.anatomy import anatomy_of


@dataclass(frozen=True)
class PartCost:
    num_params: int
    flops: int


def cost_by_part(
    model: PreTrainedModel, tokens: int, written: int | None = None
) -> dict[str, PartCost]:
    """Part → parameters, and FLOPs for one text.

    Args:
        tokens, written: as in `flops`.

    Raises:
        ModelError: the family has no row, or its attention is not supported.
    """
    params, of_stacks = params_by_part(model), flops_by_part(model, 1, tokens, written)
    anatomy = anatomy_of(model)
    if "model" in of_stacks:
        raise ModelError(
            f"the FLOPs of a {anatomy.family} model are only known in total, not by part"
        )
    flops = {**dict.fromkeys(params, 0), "head": of_stacks["head"]}
    for place, stack in enumerate(anatomy.stacks):
        own = tokens if place == 0 or written is None else written
        ffn = [view for block in stack.blocks for view in block.ffn.maps]
        widening = [] if stack.embedding_map is None else [stack.embedding_map]
        of_ffn, of_map = (
            sum(2 * own * view.in_features * view.out_features for view in views)
            for views in (ffn, widening)
        )
        flops["embeddings"] += of_map
        flops[f"{stack.name}.ffn"] = of_ffn
        for block in stack.blocks:
            for attention in block.attentions:
                part = "cross_attention" if attention.is_cross else "attention"
                flops[f"{stack.name}.{part}"] += attention_flops(attention, own, tokens)
    return {part: PartCost(count, flops[part]) for part, count in params.items()}


def known_parts(model: PreTrainedModel, tokens: int) -> dict[str, dict[str, int]]:
    """`cost_by_part` as plain data; empty if only the total is known."""
    if not has_parts(model):
        return {}
    return {name: asdict(part) for name, part in cost_by_part(model, tokens).items()}
