"""One forward pass of any model, in the form that losses need."""

from __future__ import annotations

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
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.families import FAMILIES

IMPOSSIBLE = -1e9
"""Logit of an impossible outcome: its probability is 0, and differences of two are still finite."""


def forward(model: PreTrainedModel, inputs: Mapping[str, Tensor], needs: Needs) -> Outputs:
    """Logits, and whatever else the losses need, in float32 or wider: a loss in bf16 would lose
    precision. Logits of tokens are computed when a term needs them.

    Args:
        inputs: the model's inputs by name, shape (B, T).
    Returns: logits of shape (B, 0) for a model without a head; of one that finds parts of a text,
        (B, 2, T): where one begins, and where it ends, as classes.
    Raises:
        ModelError: attention is to be captured in a model of an unknown family.
    """
    with ExitStack() as watching:
        seen = Captured()
        if needs.scores or needs.qkv:
            seen = watching.enter_context(
                capture(model, hidden=False, scores=needs.scores, qkv=needs.qkv)
            )
        raw, logits = run_to_logits(
            model, inputs, output_hidden_states=needs.hidden, return_dict=True
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
    """What one of two models is fed of a batch made for both: its own inputs, and the decoder's
    where there is one.
    """
    return {n: x for n, x in inputs.items() if n in names or n.startswith("decoder_")}


def stacks_of(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the stacks a token meets, in that order; without a family, what its config says."""
    family = FAMILIES.get(model.config.model_type)
    if family is not None:
        return tuple(stack.name for stack in family.stacks)
    return ("encoder", "decoder") if model.config.is_encoder_decoder else ("encoder",)


def shape_of(model: PreTrainedModel) -> Shape:
    """How deep and wide each stack is.

    Raises:
        ModelError: the family is not known.
    """
    return {
        stack.name: StackShape(
            num_blocks=len(stack.blocks),
            hidden_size=int(model.config.hidden_size),
            heads=stack.blocks[0].attention.heads,
            head_size=stack.blocks[0].attention.head_size,
            kv_heads=stack.blocks[0].attention.kv_heads,
            is_causal=stack.blocks[0].attention.is_causal,
        )
        for stack in anatomy_of(model).stacks
    }


def _hidden_states(model: PreTrainedModel, raw: Any) -> dict[str, tuple[Tensor, ...]]:
    """As transformers gives them: the last one after a final norm, if there is one."""
    if getattr(raw, "hidden_states", None) is not None:
        found = {stacks_of(model)[0]: raw.hidden_states}
    else:
        found = {"encoder": raw.encoder_hidden_states, "decoder": raw.decoder_hidden_states}
    return {stack: tuple(map(_wide, states)) for stack, states in found.items()}


def _of_places(logits: Tensor, mask: Tensor) -> Tensor:
    """(B, T, 2) → (B, 2, T): a token is a class, and padding is none, so that a loss does not
    depend on how far a batch is padded."""
    return logits.transpose(1, 2).masked_fill(mask[:, None] == 0, IMPOSSIBLE)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
