"""One forward pass of any sequence classifier, as the losses want to see it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.losses.targets import Outputs


def forward(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], needs_hidden_states: bool
) -> Outputs:
    """Logits, and hidden states if needed, in float32 or wider: a loss in bf16 would lose its
    digits.

    Args:
        inputs: the model's inputs by name, shape (B, T).
    Returns: logits of shape (B, 0) for a model without a head.
    Raises:
        ModelError: hidden states were asked of a model that has none in one sequence.
    """
    raw = model(**inputs, output_hidden_states=needs_hidden_states, return_dict=True)
    hidden_states: tuple[Tensor, ...] = ()
    if needs_hidden_states:
        if getattr(raw, "hidden_states", None) is None:
            raise ModelError(
                f"hidden_mse: {type(model).__name__} is an encoder-decoder, whose two stacks of "
                "hidden states have no single map yet; remove the term"
            )
        hidden_states = tuple(_wide(state) for state in raw.hidden_states)
    logits = getattr(raw, "logits", None)
    if logits is None:
        first = next(iter(inputs.values()))
        logits = torch.zeros(len(first), 0, device=first.device)
    return Outputs(_wide(logits), hidden_states)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
