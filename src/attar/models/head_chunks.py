"""A language head over many tokens without their logits: a chunk of tokens at a time.

The problem: B texts of T tokens over a vocabulary of V make a B × T × V tensor, 1.6 GB in float32
for 8 × 1,024 × 49,152, of which a loss or a score wants one number a token. The idea: keep the
hidden states, and let the head and what is computed from its logits run over some hundred tokens at
a time. In training the logits of a chunk are computed again on the way back (activation
checkpointing), so that they are never kept either; gradients are those of the whole tensor.

The head is one product more on the way back: for a head of share h of a forward pass, a training
step costs h/3 more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from attar.errors import ModelError

CHUNK_BYTES = 64 * 2**20
"""Of the float32 logits that are held at once."""
Head = Callable[[Tensor], Tensor]


def head_of(model: PreTrainedModel) -> Head:
    """What turns last hidden states (N, D) into logits (N, V), in the model's own way.

    Raises:
        ModelError: the model has no language head.
    """
    linear = model.get_output_embeddings()
    if linear is None:
        raise ModelError(f"{type(model).__name__} has no language head; name a causal LM")
    config: Any = model.config
    scale = (getattr(config, "logit_scale", None) or 1.0) / (
        getattr(config, "logits_scaling", None) or 1.0
    )  # Cohere's and Granite's
    cap: float | None = getattr(config, "final_logit_softcapping", None)  # Gemma 2's
    if scale == 1.0 and cap is None:
        return linear
    if cap is None:
        return lambda hidden: scale * linear(hidden)
    return lambda hidden: cap * torch.tanh(scale * linear(hidden) / cap)


def require_own_logits(model: PreTrainedModel, ids: Tensor) -> None:
    """Refuse a model whose code makes its logits in yet another way.

    Args:
        ids: (1, T), some tokens to try.
    Raises:
        ModelError: `head_of` of its hidden states gives other logits than the model.
    """
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        found = head_of(model)(last_hidden_states(model, inputs))
        own = model(**inputs, use_cache=False).logits
    if not torch.allclose(found, own, rtol=1e-4, atol=1e-4, equal_nan=True):
        raise ModelError(
            f"{type(model).__name__} changes the output of its head in a way that is not known "
            f"here (its logits differ by {float((found - own).abs().max()):.3g}), so its "
            "log-probabilities would be wrong; name a model of another family"
        )


def last_hidden_states(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """(B, T, D), as the head reads them."""
    return model.base_model(**inputs, use_cache=False).last_hidden_state


def in_chunks(
    head: Head, hidden: Tensor, reduce: Callable[[Tensor, slice], Tensor], vocabulary: int
) -> Tensor:
    """What `reduce` makes of the logits of some tokens at a time, joined.

    Args:
        hidden: (N, D).
        reduce: (float32 logits (n, V), which tokens of N they are) → (n, …).
        vocabulary: V, by which the size of a chunk is chosen.
    """
    tokens = max(1, CHUNK_BYTES // (4 * vocabulary))

    def of(part: Tensor, places: slice) -> Tensor:
        return reduce(head(part).float(), places)

    made: list[Tensor] = []
    for begin in range(0, len(hidden), tokens):
        places = slice(begin, min(begin + tokens, len(hidden)))
        part = hidden[places]
        if torch.is_grad_enabled():
            made.append(checkpoint(of, part, places, use_reentrant=False))
        else:
            made.append(of(part, places))
    return torch.cat(made)


def log_probabilities(head: Head, hidden: Tensor, targets: Tensor, vocabulary: int) -> Tensor:
    """log p of each target, float32 (N,).

    Args:
        hidden: (N, D), the states that predict the targets.
        targets: (N,) token ids.
    """

    def of_targets(logits: Tensor, places: slice) -> Tensor:
        return -torch.nn.functional.cross_entropy(logits, targets[places], reduction="none")

    return in_chunks(head, hidden, of_targets, vocabulary)
