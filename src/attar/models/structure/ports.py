"""Insert a module at a site, to observe or change one activation without changing the model's code.

The module is stored as an attribute of the module that the tensor passes (`at_input`, `at_output`)
and called by a stateless hook. So it is saved, copied, moved and traced like every other part of
the model.

Attention probabilities pass no module, and neither do queries and keys after a rotation. For these,
the model gets our attention function: transformers' eager one with calls to `at_query`, `at_key`,
`at_value` and `at_probabilities`. Without such modules it computes exactly what eager does.

Letters: B texts · H heads · T tokens · K head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from attar.errors import ModelError
from attar.models.structure.sites import Site

ATTENTION_NAME = "attar_eager"
PLURALS = {"query": "queries", "key": "keys", "value": "values", "probabilities": "probabilities"}


def use_attar_attention_(model: PreTrainedModel) -> None:
    """Make `model` compute attention with `attar_attention`, whose probabilities are accessible."""
    AttentionInterface.register(ATTENTION_NAME, attar_attention)
    # without a mask function of the same name, transformers silently drops the padding mask
    AttentionMaskInterface.register(ATTENTION_NAME, eager_mask)
    for config in configs_of(model):
        config._attn_implementation = ATTENTION_NAME


def configs_of(model: PreTrainedModel) -> list[Any]:
    """Every config of a model: the stacks of T5 and BART have their own."""
    modules: Iterator[Any] = model.modules()
    return list({id(m.config): m.config for m in modules if hasattr(m, "config")}.values())


def attar_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """softmax(q·kᵀ·scaling + bias + mask)·v, passing tensors through the module's `at_…` modules.

    Args:
        query: (B, H, T, K).
        key, value: the same, or fewer heads, each of which serves several query heads.
        position_bias: added to the scores, as in T5.
        softcap: of the scores: cap · tanh(scores / cap), as in Gemma 2.

    Returns:
        The context (B, T, H, K) and the probabilities (B, H, T, T).
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (
        _through_heads(module, port, heads)
        for port, heads in (("query", query), ("key", key), ("value", value))
    )
    shared_by = query.shape[1] // key.shape[1]
    if shared_by > 1:
        key, value = (heads.repeat_interleave(shared_by, dim=1) for heads in (key, value))
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = nn.functional.softmax(scores, dim=-1)
    watcher = getattr(module, "at_probabilities", None)
    if watcher is not None:
        probabilities = watcher(probabilities)
    probabilities = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    context = torch.matmul(probabilities, value).transpose(1, 2).contiguous()
    return context, probabilities


def _through_heads(module: nn.Module, port: str, heads: Tensor) -> Tensor:
    """Pass (B, H, T, K) through the module at a port, which gets tokens in the layout of a map's
    output: (B, T, H·K).
    """
    watcher = getattr(module, f"at_{port}", None)
    if watcher is None:
        return heads
    tokens = watcher(heads.transpose(1, 2).flatten(2))
    return tokens.unflatten(2, (heads.shape[1], heads.shape[3])).transpose(1, 2)


def _through_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (module.at_input(args[0]), *args[1:])  # pyright: ignore[reportCallIssue]


def _through_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return module.at_output(output)  # pyright: ignore[reportCallIssue]


def insert_(model: PreTrainedModel, modules: Mapping[Site, nn.Module]) -> list[RemovableHandle]:
    """Insert each module at its site.

    Returns:
        Handles of the hooks. To undo, remove them and the attributes (as `inserted` does).

    Raises:
        ModelError: a site already has a module, or a site is inside an attention that is not
            accessible.
    """
    handles: list[RemovableHandle] = []
    for site, inserted_module in modules.items():
        owner = model.get_submodule(site.fqn)
        if hasattr(owner, f"at_{site.port}"):
            raise ModelError(f"site {site.name} holds a module already; load the model afresh")
        is_inside = site.port not in ("input", "output")
        if is_inside and model.config._attn_implementation != ATTENTION_NAME:
            raise ModelError(
                f"attention {model.config._attn_implementation!r} does not expose its "
                f"{PLURALS[site.port]}, which site {site.name} needs; load with "
                f'attention="eager" or remove the kind "{site.kind}"'
            )
        owner.add_module(f"at_{site.port}", inserted_module)
        if site.port == "input":
            handles.append(owner.register_forward_pre_hook(_through_input))
        elif site.port == "output":
            handles.append(owner.register_forward_hook(_through_output))
    return handles


@contextmanager
def inserted(model: PreTrainedModel, modules: Mapping[Site, nn.Module]) -> Iterator[None]:
    """`insert_` within the context; afterwards the model is restored."""
    handles = insert_(model, modules)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for site in modules:
            delattr(model.get_submodule(site.fqn), f"at_{site.port}")
