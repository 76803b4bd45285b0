"""The parts of a model that narrowing can reduce: hidden dimensions, neurons, heads, and channels
of heads.

Besides the blocks, a head can have its own space (BERT's pooler: a map from D to D and tanh, read
by the classifier). It is as wide as a hidden state, but its dimensions are chosen independently;
only if a reader is the embedding table (a masked language model's head) are they the hidden
dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.structure.anatomy import Anatomy, anatomy_of, family_of
from attar.models.structure.blocks import Block
from attar.models.structure.rows import Family
from attar.models.structure.views import ChainView, FfnView, LinearView, NormView


@dataclass(frozen=True)
class Space:
    writer: LinearView
    readers: tuple[LinearView, ...]
    norm: NormView | None
    is_hidden: bool
    """Whether its dimensions are the hidden dimensions."""


@dataclass(frozen=True)
class Parts:
    """Everything that narrowing changes."""

    model: PreTrainedModel
    family: Family
    anatomy: Anatomy
    norms: tuple[NormView, ...]
    """Every norm over the hidden dimensions, in blocks and embeddings."""
    tables: tuple[str, ...]
    """Embedding tables with a column for each hidden dimension."""
    widening_maps: tuple[LinearView, ...]
    """Maps from narrower embeddings to the hidden dimensions; see `StackRow.embedding_map`."""
    head_maps: tuple[LinearView, ...]
    """Maps outside the blocks that read a hidden state."""
    spaces: tuple[Space, ...]

    @property
    def hidden_size(self) -> int:
        return self.anatomy.blocks[0].attention.q.in_features


def parts_of(model: PreTrainedModel) -> Parts:
    """Collect the parts of a model for narrowing.

    Raises:
        ModelError: the family is not supported.
    """
    family, anatomy = family_of(model), anatomy_of(model)
    spaces = tuple(_spaces(model, family))
    read = {reader.fqn for space in spaces for reader in space.readers}
    direct = {view.fqn: view for view in _head_maps(model, family) if view.fqn not in read}
    for block in anatomy.blocks:
        ffn_of(block)
    biases = {stack.shared_bias for stack in anatomy.stacks}
    inside = tuple(block.fqn + "." for block in anatomy.blocks)
    hidden = anatomy.blocks[0].attention.q.in_features
    tables = tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        and module.embedding_dim == hidden
        and not name.startswith(inside)
        and name not in biases
    )
    norms = {site.norm.fqn: site.norm for site in anatomy.norm_sites if site.num_channels == hidden}
    norms |= {norm.fqn: norm for block in anatomy.blocks for norm in block.post_norms}
    widening = tuple(s.embedding_map for s in anatomy.stacks if s.embedding_map is not None)
    return Parts(
        *(model, family, anatomy, tuple(norms.values()), tables, widening),
        *(tuple(direct.values()), spaces),
    )


def ffn_of(block: Block) -> FfnView:
    """The feed-forward of a block, which must have neurons.

    Raises:
        ModelError: it is a chain of maps, which has no separate neurons.
    """
    if isinstance(block.ffn, ChainView):
        raise ModelError(
            f"{block.fqn} has a simpler feed-forward (attar_ffn), which cannot be narrowed; narrow "
            "the model first and replace its feed-forwards afterwards (ffn = …)"
        )
    return block.ffn


def _head_maps(model: PreTrainedModel, family: Family) -> Iterator[LinearView]:
    """The first map of each of the model's heads, and the output map of a language model."""
    for name in family.heads:
        view = _linear(model, name)
        if view is not None:
            yield view
    output: Any = model.get_output_embeddings()
    if output is not None:
        fqn = next(name for name, module in model.named_modules() if module is output)
        yield LinearView(fqn, output)


def _spaces(model: PreTrainedModel, family: Family) -> Iterator[Space]:
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for row in family.head_spaces:
        writer = _linear(model, row.writer)
        if writer is None or writer.out_features != writer.in_features:
            continue  # missing, or as wide as narrower embeddings, whose width does not change
        readers = tuple(v for v in (_linear(model, name) for name in row.readers) if v is not None)
        norm = None if row.norm is None else _module(model, row.norm)
        is_hidden = any(id(reader.module.weight) in tables for reader in readers)
        yield Space(writer, readers, None if norm is None else NormView(*norm), is_hidden)


def _linear(model: PreTrainedModel, name: str) -> LinearView | None:
    found = _module(model, name)
    return None if found is None else LinearView(*found)


def _module(model: PreTrainedModel, name: str) -> tuple[str, nn.Module] | None:
    """A module by its name relative to the base model or to the whole model; None: it does not
    exist.
    """
    for fqn in (f"{model.base_model_prefix}.{name}", name):
        try:
            module: Any = model.get_submodule(fqn)
        except AttributeError:
            continue
        if module is not None and hasattr(module, "weight"):
            return fqn, module
    return None
