"""One forward pass of any model, with the outputs that losses need."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.losses.targets import Outputs
from attar.losses.term import Needs, Shape, StackShape
from attar.models.capture import Captured, capture
from attar.models.head_chunks import run_to_logits
from attar.models.structure.anatomy import with_blocks
from attar.models.structure.families import FAMILIES

IMPOSSIBLE = -1e9
"""Logit of an impossible outcome: its probability is 0, and the difference of two such logits is
finite."""


def forward(model: PreTrainedModel, inputs: Mapping[str, Tensor], needs: Needs) -> Outputs:
    """Compute the logits and the other outputs that the losses need.

    Outputs are float32 or wider, because a loss in bf16 would lose precision. Logits of tokens are
    computed only when a term needs them.

    Args:
        inputs: the model's inputs by name, shape (B, T).

    Returns:
        Outputs. Logits have shape (B, 0) for a model without a head, and (B, 2, T) for question
        answering: tokens are the classes, for the beginning and the end of the answer.

    Raises:
        ModelError: attention must be captured, but the model's family is not supported.
    """
    with ExitStack() as watching:
        seen = Captured()
        if needs.scores or needs.qkv:
            seen = watching.enter_context(
                capture(model, hidden=False, scores=needs.scores, qkv=needs.qkv)
            )
        # keys and values are not read again, and a cache would copy them
        caches = "use_cache" in inspect.signature(model.forward).parameters
        settings = {"use_cache": False} if caches else {}
        raw, logits = run_to_logits(
            model, inputs, output_hidden_states=needs.hidden, return_dict=True, **settings
        )
    if isinstance(logits, Tensor):
        logits = _wide(logits)
        if "start_logits" in raw:
            logits = _of_places(logits, inputs["attention_mask"])
    return Outputs(
        logits,
        hidden=_hidden_states(model, raw) if needs.hidden else {},
        scores=seen.scores,
        qkv=seen.qkv,
    )


def fed(inputs: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The part of a batch that one of two models gets: its own inputs, and the decoder's inputs if
    there are any.
    """
    return {n: x for n, x in inputs.items() if n in names or n.startswith("decoder_")}


def stacks_of(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the model's stacks, in the order of execution; for an unknown family, taken from its
    config.
    """
    family = FAMILIES.get(model.config.model_type)
    if family is not None:
        return tuple(stack.name for stack in family.stacks)
    return ("encoder", "decoder") if model.config.is_encoder_decoder else ("encoder",)


def shape_of(model: PreTrainedModel) -> Shape:
    """Depth and width of each stack.

    Raises:
        ModelError: the family is not supported, or has no blocks.
    """
    why = "no states of blocks can be compared; use losses on outputs, such as similarity_kl"
    return {
        stack.name: StackShape(
            num_blocks=len(stack.blocks),
            hidden_size=int(model.config.hidden_size),
            heads=stack.blocks[0].attention.heads,
            head_size=stack.blocks[0].attention.head_size,
            kv_heads=stack.blocks[0].attention.kv_heads,
            is_causal=stack.blocks[0].attention.is_causal,
        )
        for stack in with_blocks(model, why).stacks
    }


def _hidden_states(model: PreTrainedModel, raw: Any) -> dict[str, tuple[Tensor, ...]]:
    """Hidden states as returned by transformers: the last one is after the final norm, if there is
    one.
    """
    if getattr(raw, "hidden_states", None) is not None:
        found = {stacks_of(model)[0]: raw.hidden_states}
    else:
        found = {"encoder": raw.encoder_hidden_states, "decoder": raw.decoder_hidden_states}
    return {stack: tuple(map(_wide, states)) for stack, states in found.items()}


def _of_places(logits: Tensor, mask: Tensor) -> Tensor:
    """(B, T, 2) → (B, 2, T): each token is a class. Padding is masked out, so that a loss does not
    depend on the width of the batch."""
    return logits.transpose(1, 2).masked_fill(mask[:, None] == 0, IMPOSSIBLE)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
