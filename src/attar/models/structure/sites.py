"""Where activations are quantized: the tensors of a model that each have a grid.

A *site* is one tensor, identified by the module it passes and the port: a module's `input`, its
`output`, or, inside an attention, `query`, `key`, `value` and `probabilities`. Sites are derived
from the anatomy. The rule: inputs of matrix products are quantized.

    attention     query · key · value · attention_probs · context     cross-attention: cross_…
    feed-forward  ffn_act: the input of `down`, act(up(x)) or, gated, act(gate(x)) · up(x); in a
                  chain of maps, the input of each map that is not a norm's output
    embeddings    embedding, after its norm in a post-LN stack · projected_embedding
    norms         mha_norm · cross_norm · ffn_norm (one per sublayer) · final_norm
    head          pooler_input · classifier_input

A norm comes after its sublayer in a post-LN block and before it in a pre-LN block. Each tensor has
one grid: in a post-LN block, a norm's quantized output feeds the queries, keys, values or the FFN
*and* the shortcut around them. Not quantized: attention scores (their softmax follows), sums before
a norm, so the whole residual stream of a pre-LN stack, tanh, and logits. If a head reads only one
token of the last norm, the grid is at the head's input (`pooler_input`) instead. A head that reads
every token uses the norm's own grid.

Queries, keys and values are quantized at the output of their maps, before the scores are scaled by
1/√K. This is equivalent to the published site "after the scaling": for a > 0 the grid of a·x is a
times the grid of x. If there are rotary positions or norms on heads between a map and the scores,
or one module computes several of the three, they are quantized at the input of the attention: after
the rotation, which mixes channels. A cached key or value is on its grid, so rounding it again
changes nothing.

Source: Outlier Suppression (Wei et al. 2022), figure 8 and table 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attar.errors import ModelError
from attar.models.heads import answers_tokens
from attar.models.structure.anatomy import Anatomy, anatomy_of
from attar.models.structure.blocks import Block, Stack
from attar.models.structure.families import FAMILIES
from attar.models.structure.site_kinds import Port, Site, StackName
from attar.models.structure.views import AttentionView, LinearView, NormView

POSITION_BIAS = "relative_attention_bias"
"""Suffix of the name of a table of relative positions, in T5 and MPNet."""


def sites_of(model: PreTrainedModel) -> list[Site]:
    """Every activation of `model` that is quantized, in the order of the forward pass.

    Raises:
        ModelError: the family has no row, a map reads a tensor that is not a site, or the model is
            an encoder turned into a decoder by its config.
    """
    anatomy = anatomy_of(model)
    if getattr(model.config, "is_decoder", False) and not anatomy.stacks[-1].row.is_causal:
        raise ModelError(
            f"a {type(model).__name__} with is_decoder = true uses causal attention, which is "
            f"not supported for the family {anatomy.family!r}; quantize it with is_decoder = false"
        )
    sites = [site for stack in anatomy.stacks for site in _stack_sites(model, stack)]
    pooled = list(_pooled_sites(model, anatomy))
    if anatomy.head is not None and reads_one_token(model, anatomy):
        last = anatomy.stacks[-1]
        norm = last.final_norm or last.blocks[-1].norms[-1]
        sites = [site for site in sites if site.fqn != norm.fqn]
    sites += pooled
    _require_all_inputs(model, anatomy, sites)
    return sites


def norm_sites_of(stack: Stack) -> list[tuple[NormView, Site]]:
    """Every norm of a stack with the site of its output, whether it is quantized or not."""
    name: Any = stack.name
    found: list[tuple[NormView, Site]] = []
    if stack.embedding_norm is not None:
        view = stack.embedding_norm
        found.append((view, Site(view.fqn, "output", "embedding", None, name)))
    found += [pair for block in stack.blocks for pair in _block_norms(block, name)]
    if stack.final_norm is not None:
        view = stack.final_norm
        found.append((view, Site(view.fqn, "output", "final_norm", None, name)))
    return found


def _block_norms(block: Block, stack: StackName) -> list[tuple[NormView, Site]]:
    return [
        (view, Site(view.fqn, "output", f"{sublayer.kind}_norm", block.index, stack))
        for sublayer in block.sublayers
        if (view := sublayer.norm) is not None
    ]


def _stack_sites(model: PreTrainedModel, stack: Stack) -> Iterator[Site]:
    name: Any = stack.name
    is_rotary = getattr(model.config, "rope_parameters", None) is not None
    norms = {view.fqn: site for view, site in norm_sites_of(stack)}
    if stack.embedding_norm is not None and not stack.row.is_pre_norm:
        yield norms[stack.embedding_norm.fqn]
    if stack.embedding_map is not None:
        yield Site(stack.embedding_map.fqn, "output", "projected_embedding", None, name)
    for block in stack.blocks:
        ports = [_attention_ports(view, is_rotary=is_rotary) for view in block.attentions]
        ports.append([("ffn_act", view.fqn, "input") for view in block.ffn.inner])
        unread = None if stack.row.is_pre_norm else _unread_norm(block)
        for i, of_sublayer in enumerate(ports):
            inside = [Site(fqn, port, kind, block.index, name) for kind, fqn, port in of_sublayer]
            view = block.sublayers[i].norm if i < len(block.sublayers) else None
            norm = [] if view is None or view is unread else [norms[view.fqn]]
            yield from (*norm, *inside) if stack.row.is_pre_norm else (*inside, *norm)
    if stack.final_norm is not None:
        yield norms[stack.final_norm.fqn]


def _unread_norm(block: Block) -> NormView | None:
    """The norm before a post-norm block's feed-forward without maps: only a sum reads it."""
    has_ffn = block.sublayers[-1].kind == "ffn"
    return block.sublayers[-2].norm if has_ffn and not block.ffn.maps else None


def _attention_ports(view: AttentionView, *, is_rotary: bool) -> list[tuple[str, str, Port]]:
    """(kind, module, port) of the inputs of an attention's products and of its last map."""
    prefix = "cross_" if view.is_cross else ""
    is_moved = (is_rotary and not view.is_cross) or bool(view.head_norms)

    def operand(port: Port, made_by: LinearView, *, is_moved: bool) -> tuple[str, str, Port]:
        if is_moved or made_by.part is not None:
            return f"{prefix}{port}", view.fqn, port
        return f"{prefix}{port}", made_by.fqn, "output"

    context: tuple[str, str, Port] = (f"{prefix}context", view.out.fqn, "input")
    if not view.is_plain:
        return [context]
    return [
        operand("query", view.q, is_moved=is_moved),
        operand("key", view.k, is_moved=is_moved),
        operand("value", view.v, is_moved=False),
        ("cross_probs" if view.is_cross else "attention_probs", view.fqn, "probabilities"),
        context,
    ]


def reads_one_token(model: PreTrainedModel, anatomy: Anatomy) -> bool:
    """Whether the head reads one token of each text. A decoder's `score`, a language head, and a
    head for tags or for parts of a text read every token."""
    is_decoder_alone = anatomy.stacks[-1].row.is_causal and len(anatomy.stacks) == 1
    is_pooled = model.get_output_embeddings() is None and not answers_tokens(model)
    return not is_decoder_alone and is_pooled


def _pooled_sites(model: PreTrainedModel, anatomy: Anatomy) -> Iterator[Site]:
    """The input of a head that reads one token of each text, and the input of its second map."""
    head, is_pooled = anatomy.head, reads_one_token(model, anatomy)
    if head is None or not (is_pooled or answers_tokens(model)):
        return
    stack: Any = anatomy.stacks[-1].name
    if is_pooled:
        yield Site(head.fqn, "input", "pooler_input", None, stack)
    modules = dict(model.named_modules())
    for space in FAMILIES[anatomy.family].head_spaces:
        if head.fqn.endswith(space.writer):
            for reader in space.readers:
                if reader in modules:
                    yield Site(reader, "input", "classifier_input", None, stack)


def _require_all_inputs(model: PreTrainedModel, anatomy: Anatomy, sites: list[Site]) -> None:
    """Raise unless every Linear of a quantized model reads a quantized tensor; otherwise it would
    silently stay in float."""
    seen = {site.fqn for site in sites if site.port == "input"}
    known = {view.fqn for block in anatomy.blocks for view in block.linears}
    known |= {s.embedding_map.fqn for s in anatomy.stacks if s.embedding_map is not None}
    head = model.get_output_embeddings() if anatomy.head is None else anatomy.head.module
    strange = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in seen | known and module is not head
    ]
    if strange:
        raise ModelError(
            f"no site covers what {', '.join(strange[:3])} of {type(model).__name__} reads; "
            "quantization knows heads for classes or a number, language heads on the last norm, "
            "and bare models; fine-tune the model for one of these, or add the head's row in "
            "src/attar/models/structure/families.py"
        )


def quantized_weights(model: nn.Module) -> dict[str, Literal["embedding", "linear"]]:
    """Names of all embedding tables and Linear weights, in module order. Grids are along axis 0,
    which requires that a Conv1D has been converted (`plain_linears`). A table of relative positions
    stays float: it is small, and added to scores that are float.
    """
    found: dict[str, Literal["embedding", "linear"]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and not name.endswith(POSITION_BIAS):
            found[f"{name}.weight"] = "embedding"
        elif isinstance(module, nn.Linear | Conv1D):
            found[f"{name}.weight"] = "linear"
    return found
