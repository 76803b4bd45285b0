"""Choose the units to keep, and derive the rows and columns of every map.

A choice is made once and applied wherever the unit is read or written. Heads are chosen per block,
except for self-attentions of a stack whose blocks share one table of relative positions: the
table's columns are heads, so all blocks keep the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attar.models.narrowing.importance import Importance
from attar.models.narrowing.parts import Parts, ffn_of
from attar.models.narrowing.sizes import Sizes, StackSizes
from attar.models.structure.blocks import Stack
from attar.models.structure.views import AttentionView, LinearView


@dataclass(frozen=True)
class Cut:
    """Rows and columns of a matrix (O, I) to keep; None: all."""

    rows: Tensor | None = None
    columns: Tensor | None = None


@dataclass(frozen=True)
class Kept:
    """Units to keep, in increasing order."""

    hidden: Tensor
    maps: dict[str, list[tuple[LinearView, Cut]]] = field(default_factory=dict)
    """A module's fqn → its views (three if q, k and v are stored in one module)."""
    bias_heads: dict[str, Tensor] = field(default_factory=dict)
    """Name of a table of relative positions → heads."""
    space_norms: dict[str, Tensor] = field(default_factory=dict)

    def cut(self, view: LinearView, rows: Tensor | None, columns: Tensor | None) -> None:
        self.maps.setdefault(view.fqn, []).append((view, Cut(rows, columns)))


def best(importance: Tensor, count: int) -> Tensor:
    """The `count` most important units, in increasing order; ties go to the first."""
    if importance.is_meta:
        return torch.arange(count, device="meta")
    order = torch.argsort(importance, descending=True, stable=True)
    return order[:count].sort().values


def choose(parts: Parts, sizes: Sizes, importance: Importance) -> Kept:
    """The most important units, as many as the sizes require."""
    hidden = best(importance.hidden, sizes.hidden)
    kept = Kept(hidden)
    for stack in parts.anatomy.stacks:
        _keep_stack(stack, sizes.stacks[stack.name], importance, kept)
    inner = {space.writer.fqn: hidden for space in parts.spaces if space.is_hidden}
    for space in parts.spaces:
        rows = inner.get(space.writer.fqn)
        if rows is None:
            rows = best(importance.spaces[space.writer.fqn], sizes.hidden)
        kept.cut(space.writer, rows, hidden)
        for reader in space.readers:
            kept.cut(reader, None, rows)
        if space.norm is not None:
            kept.space_norms[space.norm.fqn] = rows
    for view in parts.widening_maps:
        kept.cut(view, hidden, None)
    for view in parts.head_maps:
        if view.fqn not in kept.maps:
            kept.cut(view, None, hidden)
    return kept


def _keep_stack(stack: Stack, sizes: StackSizes, importance: Importance, kept: Kept) -> None:
    hidden = kept.hidden
    shared: Tensor | None = None
    if stack.shared_bias is not None:
        # one table of relative positions serves all blocks, so they keep the same heads
        per_block = [importance.heads[block.attention.fqn] for block in stack.blocks]
        shared = torch.stack([heads / heads.sum().clamp(min=1e-300) for heads in per_block]).sum(0)
    for block in stack.blocks:
        neurons = best(importance.neurons[block.ffn.fqn], sizes.intermediate)
        for view in block.ffn.inputs:
            kept.cut(view, neurons, hidden)
        kept.cut(ffn_of(block).down, hidden, neurons)
        for a in block.attentions:
            own = importance.heads[a.fqn]
            heads = _best_heads(a, own if a.is_cross or shared is None else shared, sizes)
            _keep_heads(a, heads, sizes, importance, kept)
    if stack.shared_bias is not None and shared is not None:
        heads = _best_heads(stack.blocks[0].attention, shared, sizes)
        kept.bias_heads[f"{stack.shared_bias}.weight"] = heads


def _best_heads(a: AttentionView, importance: Tensor, sizes: StackSizes) -> Tensor:
    """Query heads to keep: whole groups that share keys and values, or the same number from each
    group.
    """
    group = a.heads // a.kv_heads
    grouped = importance.reshape(a.kv_heads, group)
    if sizes.kv_heads < a.kv_heads or sizes.heads == a.heads:
        groups = best(grouped.sum(dim=1), sizes.kv_heads)
        return (groups[:, None] * group + torch.arange(group, device=groups.device)).reshape(-1)
    each = sizes.heads // a.kv_heads
    rows = [best(row, each) + i * group for i, row in enumerate(grouped)]
    return torch.cat(rows)


def _keep_heads(
    a: AttentionView, heads: Tensor, sizes: StackSizes, importance: Importance, kept: Kept
) -> None:
    """Rows of q, k and v and columns of out for the heads to keep, and for their channels."""
    group = a.heads // a.kv_heads
    shared = heads if group == 1 else heads.reshape(sizes.kv_heads, -1)[:, 0] // group
    if sizes.head_size == a.head_size:
        q, kv = _channels(heads, a.head_size), _channels(shared, a.head_size)
        out, k = q, kv
    else:
        q = k = _best_channels(importance.qk_channels[a.fqn], heads, a.head_size, sizes.head_size)
        out = kv = _best_channels(
            importance.vo_channels[a.fqn], heads, a.head_size, sizes.head_size
        )
    memory = kept.hidden
    kept.cut(a.q, q, memory)
    kept.cut(a.k, k, memory)
    kept.cut(a.v, kv, memory)
    kept.cut(a.out, memory, out)


def _channels(heads: Tensor, size: int) -> Tensor:
    return (heads[:, None] * size + torch.arange(size, device=heads.device)).reshape(-1)


def _best_channels(importance: Tensor, heads: Tensor, size: int, count: int) -> Tensor:
    rows = importance.reshape(-1, size)
    if rows.is_meta:
        return torch.arange(len(heads) * count, device="meta")
    return torch.cat([best(rows[h], count) + h * size for h in heads.tolist()])
