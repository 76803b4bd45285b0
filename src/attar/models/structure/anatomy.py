"""Views of a model's parts, the same for every family: `anatomy_of(model)`.

The family's row (`families`) names the parts; here they are looked up, checked, and combined into
norm sites. A block with a layer that its row does not name is an error, so that a variant of a
family (an adapter, an unexpected cross-attention) is never handled partially.

    post-LN   a norm → the next sublayer's inputs, and as the shortcut → that sublayer's own norm
    pre-LN    a sublayer's norm → its own inputs
    last norm of an encoder → every cross-attention's k and v; of the last stack → the head
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.heads import TOKEN_HEADS
from attar.models.structure.blocks import Block, Stack, Sublayer
from attar.models.structure.chains import LinearChain, NoFfn, variant_of
from attar.models.structure.families import FAMILIES, without_views
from attar.models.structure.rows import AttentionRow, Family, FfnRow, StackRow
from attar.models.structure.views import (
    AttentionView,
    ChainView,
    FfnView,
    LinearView,
    NormSite,
    NormView,
    Shortcut,
)

TABLE = "src/attar/models/structure/families.py"


@dataclass(frozen=True)
class Anatomy:
    """All parts of a model that methods work on."""

    family: str
    stacks: tuple[Stack, ...]
    norm_sites: tuple[NormSite, ...]
    head: LinearView | None
    """The first map of the head, which reads the last norm's output."""
    max_tokens: int | None
    """Maximum number of input tokens; None: no hard limit."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all stacks, encoder first."""
        return tuple(block for stack in self.stacks for block in stack.blocks)

    def stack(self, name: str) -> Stack:
        """The stack called "encoder" or "decoder".

        Raises:
            ModelError: the model has no such stack.
        """
        for stack in self.stacks:
            if stack.name == name:
                return stack
        names = ", ".join(stack.name for stack in self.stacks)
        raise ModelError(f"a {self.family} model has no {name!r}; it has: {names}")


def family_of(model: PreTrainedModel) -> Family:
    """The row of a model's family.

    Raises:
        ModelError: the family has no row.
    """
    model_type = model.config.model_type
    if model_type not in FAMILIES:
        raise ModelError(without_views(model_type))
    return FAMILIES[model_type]


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """Build the views of a model.

    Raises:
        ModelError: the family is not supported, or the model does not match its row.
    """
    family = family_of(model)
    finder = _Finder(model)
    stacks = tuple(finder.stack(row) for row in family.stacks)
    head = finder.head(family)
    sites = tuple(_norm_sites(stacks, head, is_bare=model.base_model is model))
    return Anatomy(model.config.model_type, stacks, sites, head, family.max_tokens(model.config))


def with_blocks(model: PreTrainedModel, why: str) -> Anatomy:
    """`anatomy_of` a model that has blocks.

    Args:
        why: what cannot be done without them, for the message.
    Raises:
        ModelError: as `anatomy_of`; it has none, as a table of tokens.
    """
    anatomy = anatomy_of(model)
    if not anatomy.blocks:
        raise ModelError(f"a model of type {anatomy.family!r} has no blocks, so {why}")
    return anatomy


class _Finder:
    """Looks up modules by the names in a row, and detects tied weights."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.base: nn.Module = model.base_model
        names = {id(module): name for name, module in model.named_modules()}
        self.base_fqn = names[id(self.base)]
        self.embedding_weights = {
            id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
        }

    def fqn(self, *parts: str) -> str:
        return ".".join(part for part in (self.base_fqn, *parts) if part)

    def module(self, fqn: str) -> Any:
        try:
            return self.model.get_submodule(fqn)
        except AttributeError as error:
            raise ModelError(
                f"{type(self.model).__name__} has no module {fqn!r}, which the row of "
                f"{self.model.config.model_type!r} in {TABLE} names; correct the row"
            ) from error

    def has(self, fqn: str) -> bool:
        try:
            self.model.get_submodule(fqn)
        except AttributeError:
            return False
        return True

    def linear(self, block: str, name: str) -> LinearView:
        path, _, part = name.partition("[")
        fqn = f"{block}.{path}" if block else path
        module = self.module(fqn)
        if isinstance(module, LinearChain):  # attention's output map, then a variant's
            fqn, module = f"{fqn}.maps.0", module.maps[0]
        index, _, count = part.rstrip("]").partition("/")
        return LinearView(
            fqn=fqn,
            module=module,
            part=(int(index), int(count)) if part else None,
            is_tied=id(module.weight) in self.embedding_weights,
        )

    def table(self, fqn: str) -> str:
        self.module(fqn)
        return fqn

    def norm(self, row: StackRow, fqn: str) -> NormView:
        return NormView(fqn, self.module(fqn), row.norm_offset)

    def adder(self, block: str, row: AttentionRow | FfnRow) -> str | None:
        if row.adder is None:
            return None
        self.module(f"{block}.{row.adder}")
        return f"{block}.{row.adder}"

    def head(self, family: Family) -> LinearView | None:
        for name in (*family.heads, *TOKEN_HEADS):
            for fqn in (self.fqn(name), name):
                if self.has(fqn) and self.model.get_submodule(fqn) is not None:
                    return self.linear("", fqn)
        return None

    def stack(self, row: StackRow) -> Stack:
        if getattr(self.model.config, "use_bidirectional_attention", False):
            row = replace(row, is_causal=False)
        blocks_fqn = self.fqn(row.blocks)
        count = len(self.module(blocks_fqn))
        wider = self.fqn(row.embedding_map or "none")
        blocks = tuple(self.block(row, f"{blocks_fqn}.{i}", i) for i in range(count))
        return Stack(
            name=row.name,
            row=row,
            blocks_fqn=blocks_fqn,
            blocks=blocks,
            tables=tuple(self.table(self.fqn(name)) for name in row.tables),
            embedding_norm=self.norm_of_stack(row, row.embedding_norm),
            embedding_map=self.linear("", wider) if self.has(wider) else None,
            final_norm=self.norm_of_stack(row, row.final_norm),
            shared_bias=self.table(self.fqn(row.shared_bias)) if row.shared_bias else None,
        )

    def norm_of_sublayer(self, row: StackRow, block: str, name: str) -> NormView | None:
        fqn = f"{block}.{name}"
        if isinstance(self.module(fqn), nn.Identity):
            is_first = row.first_norm is not None and name == row.attention.norm
            return self.norm(row, self.fqn(row.first_norm or "")) if is_first else None
        return self.norm(row, fqn)

    def norm_of_stack(self, row: StackRow, name: str | None) -> NormView | None:
        return None if name is None else self.norm(row, self.fqn(name))

    def block(self, row: StackRow, fqn: str, index: int) -> Block:
        heads = getattr(self.model.config, row.heads)
        attention = self.attention(fqn, row, row.attention, heads)
        cross = self.attention(fqn, row, row.cross, heads) if row.cross else None
        kinds = [ffn for ffn in row.ffns if self.has(f"{fqn}.{ffn.up.partition('[')[0]}")]
        ffn_row = kinds[0] if kinds else row.ffns[0]
        ffn = self.ffn(fqn, row, ffn_row)
        every: list[tuple[Literal["mha", "cross", "ffn"], AttentionRow | FfnRow, Any]] = [
            ("mha", row.attention, attention),
            *([("cross", row.cross, cross)] if row.cross else []),
            ("ffn", ffn_row, ffn),
        ]
        sublayers = [
            Sublayer(
                kind, view.inputs, self.norm_of_sublayer(row, fqn, its.norm), self.adder(fqn, its)
            )
            for kind, its, view in every
        ]
        if sublayers[-1].norm is None:
            sublayers.pop()
        behind = [
            self.norm_of_sublayer(row, fqn, its.post_norm) for _, its, _ in every if its.post_norm
        ]
        post_norms = tuple(norm for norm in behind if norm is not None)
        block = Block(
            *(fqn, self.module(fqn), index, attention, cross, ffn, tuple(sublayers), post_norms)
        )
        self._check_complete(block)
        return block

    def attention(
        self, block: str, stack: StackRow, row: AttentionRow, heads: int
    ) -> AttentionView:
        is_cross = row is stack.cross
        core = self.module(f"{block}.{row.core}")
        q, k, v, out = (self.linear(block, name) for name in (row.q, row.k, row.v, row.out))
        head_size = q.out_features // heads
        return AttentionView(
            fqn=f"{block}.{row.core}",
            module=core,
            q=q,
            k=k,
            v=v,
            out=out,
            heads=heads,
            kv_heads=k.out_features // head_size,
            head_size=head_size,
            scaling=float(getattr(core, "scaling", head_size**-0.5)),
            is_cross=is_cross,
            is_causal=stack.is_causal and not is_cross,
            q_norm=self.norm(stack, f"{block}.{row.q_norm}") if row.q_norm else None,
            k_norm=self.norm(stack, f"{block}.{row.k_norm}") if row.k_norm else None,
            is_plain=row.is_plain,
        )

    def ffn(self, block: str, stack: StackRow, row: FfnRow) -> FfnView | ChainView:
        place = f"{block}.{row.whole or row.down}"
        found = self.module(place)
        if isinstance(found, LinearChain | NoFfn):
            return self.chain(block, place, found, stack)
        act_fqn = f"{block}.{row.act}"
        return FfnView(
            fqn=block,
            up=self.linear(block, row.up),
            gate=self.linear(block, row.gate) if row.gate else None,
            down=self.linear(block, row.down),
            act=self.module(act_fqn),
            act_fqn=act_fqn,
        )

    def chain(
        self, block: str, place: str, found: LinearChain | NoFfn, stack: StackRow
    ) -> ChainView:
        settings = variant_of(self.model.config)
        assert settings is not None
        first = 0
        if settings.row.follows_attention:
            place, first = f"{block}.{(stack.cross or stack.attention).out}", 1
            found = self.module(place)
        is_chain = isinstance(found, LinearChain)
        names = [f"{place}.maps.{i}" for i in range(first, len(found.maps))] if is_chain else []
        return ChainView(
            fqn=place,
            maps=tuple(LinearView(name, self.module(name)) for name in names),
            has_relu=is_chain and found.relu is not None,
            reads_norm=settings.row.lost_norm == "none",
        )

    def _check_complete(self, block: Block) -> None:
        """Raise unless every parameter of the block belongs to a view, to a table of relative
        positions, or to a quantizer inserted by `ports` while ranges are learned.
        """
        head_norms = [norm for a in block.attentions for norm in a.head_norms]
        norms = (*block.norms, *block.post_norms, *head_norms)
        known = [view.module for view in (*block.linears, *norms)]
        covered = {id(p) for module in known for p in module.parameters()}
        strange = [
            name
            for name, parameter in block.module.named_parameters()
            if id(parameter) not in covered
            and "relative_attention_bias" not in name
            and ".at_" not in name
        ]
        if strange:
            raise ModelError(
                f"{block.fqn} has {len(strange)} parameters that the row of "
                f"{self.model.config.model_type!r} in {TABLE} does not name: "
                f"{', '.join(strange[:6])}; this variant of the family is not supported"
            )


def _norm_sites(
    stacks: Sequence[Stack], head: LinearView | None, *, is_bare: bool
) -> Iterator[NormSite]:
    """Every norm of the model with its readers. The last norm of a bare model is an output."""
    for position, stack in enumerate(stacks):
        is_last = position == len(stacks) - 1
        if is_last:
            after = () if head is None else (head,)
        else:
            crosses = [block.cross_attention for block in stacks[-1].blocks]
            after = tuple(view for c in crosses if c is not None for view in (c.k, c.v))
        for site in _sites_of_stack(stack, after):
            leaves = is_bare and is_last and site.consumers == after
            yield replace(site, is_closed=False) if leaves else site


def _sites_of_stack(stack: Stack, after: tuple[LinearView, ...]) -> Iterator[NormSite]:
    sublayers = [(block.index, sublayer) for block in stack.blocks for sublayer in block.sublayers]

    # DeBERTa maps its positions with the same queries and keys
    read_more = {a.q.fqn for b in stack.blocks for a in b.attentions if not a.is_plain}

    def site(
        norm: NormView, block: int | None, readers: Sequence[LinearView], shortcut: Shortcut | None
    ) -> NormSite:
        return NormSite(
            norm=norm,
            consumers=tuple(readers),
            shortcuts=() if shortcut is None else (shortcut,),
            is_closed=bool(readers)
            and not any(reader.is_tied or reader.fqn in read_more for reader in readers),
            stack=stack.name,
            block=block,
        )

    if stack.row.is_pre_norm:
        for index, sublayer in sublayers:
            if sublayer.norm is None:
                continue
            found = site(sublayer.norm, index, sublayer.inputs, None)
            # a norm outside the blocks starts the residual stream, which therefore reads it too
            is_inside = found.name.startswith(stack.blocks_fqn)
            yield found if is_inside else replace(found, is_closed=False)
        if stack.final_norm is not None:
            yield site(stack.final_norm, None, after, None)
        return
    first = [] if stack.embedding_norm is None else [(None, stack.embedding_norm)]
    if stack.embedding_norm is not None and stack.embedding_map is not None:
        yield site(stack.embedding_norm, None, (stack.embedding_map,), None)
        first = []
    norms = [*first, *((index, sublayer.norm) for index, sublayer in sublayers)]
    readers = [sublayer for _, sublayer in sublayers][1 - len(first) :]
    for (index, norm), reader in zip(norms, (*readers, None), strict=True):
        if norm is None:
            continue
        if reader is None:
            yield site(norm, index, after, None)
        else:
            found = site(norm, index, reader.inputs, reader.shortcut)
            # its sum is read by another block's norm, or only by a norm
            yield found if reader.shortcut is not None else replace(found, is_closed=False)
