"""The requested widths, checked against those of a model.

Most families have no config field for the size of a head: it is hidden_size / heads. In these, a
narrower hidden state also narrows the heads, and some combinations are impossible. If keys and
values have fewer heads than queries, heads are removed in whole groups, or the same number from
each group.
"""

from __future__ import annotations

from dataclasses import dataclass

from attar.errors import ModelError
from attar.models.config import ChangedModel
from attar.models.narrowing.parts import Parts, ffn_of
from attar.models.structure.blocks import Stack


@dataclass(frozen=True)
class StackSizes:
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int


@dataclass(frozen=True)
class Sizes:
    hidden: int
    stacks: dict[str, StackSizes]


def _sizes(stack: Stack) -> StackSizes:
    block = stack.blocks[0]
    attention = block.attention
    return StackSizes(
        ffn_of(block).down.in_features, attention.heads, attention.kv_heads, attention.head_size
    )


def wanted_sizes(parts: Parts, reference: ChangedModel) -> Sizes:
    """The widths that a reference requests; others are unchanged.

    Raises:
        ModelError: larger than the model's, or a combination that the family's config cannot
            represent.
    """
    has = parts.hidden_size
    hidden = _at_most("hidden_size", reference.hidden_size, has, "the model")
    is_scaled = parts.family.scales_embeddings(parts.model.config)
    if is_scaled and hidden != has and parts.anatomy.stacks[-1].final_norm is None:
        raise ModelError(
            f"hidden_size {hidden}: this model multiplies its embeddings by √{has}, which "
            "changes with the width; narrow only intermediate_size"
        )
    stacks: dict[str, StackSizes] = {}
    for stack in parts.anatomy.stacks:
        own, where = _sizes(stack), f"the {stack.name}"
        heads = _at_most("num_attention_heads", reference.num_attention_heads, own.heads, where)
        stacks[stack.name] = StackSizes(
            _at_most("intermediate_size", reference.intermediate_size, own.intermediate, where),
            heads,
            _kv_heads(own, heads, where),
            _head_size(stack, own, heads, hidden),
        )
    return Sizes(hidden, stacks)


def _at_most(name: str, asked: int | None, has: int, where: str) -> int:
    if asked is not None and asked > has:
        raise ModelError(
            f"{name} is {asked}, and {where} has {has}; a narrower model has at most {has}"
        )
    return has if asked is None else asked


def _kv_heads(own: StackSizes, heads: int, where: str) -> int:
    group = own.heads // own.kv_heads
    if heads % group == 0:
        return heads // group
    if heads % own.kv_heads == 0:
        return own.kv_heads
    fit = [n for n in range(1, own.heads + 1) if n % group == 0 or n % own.kv_heads == 0]
    raise ModelError(
        f"num_attention_heads is {heads}, and {where} has {own.heads} heads that share "
        f"{own.kv_heads} of keys and values, {group} each: keep whole groups, or equally many "
        f"heads of each; choose one of {', '.join(map(str, fit))}"
    )


def _head_size(stack: Stack, own: StackSizes, heads: int, hidden: int) -> int:
    if stack.row.head_size is not None:
        return own.head_size
    size, rest = divmod(hidden, heads)
    if rest or size > own.head_size:
        fewest = -(-hidden // own.head_size)
        fit = [n for n in range(fewest, own.heads + 1) if hidden % n == 0]
        what = f"heads of {hidden / heads:g}" if rest else f"heads of {size}"
        raise ModelError(
            f"hidden_size {hidden} over {heads} heads gives {what}, and the {stack.name} has heads "
            f"of {own.head_size}, of which a whole number can be kept; "
            + (
                f"with hidden_size {hidden} choose num_attention_heads among "
                f"{', '.join(map(str, fit))}"
                if fit
                else f"choose a hidden_size that some number of heads up to {own.heads} divides"
            )
        )
    return size
