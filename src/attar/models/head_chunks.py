"""Run a language model without its head, and compute logits for a few rows at a time.

The logits of B texts of T tokens are B × T × V numbers; given the input of the head,
`attar.numerics.logits` computes the needed ones a few rows at a time. The model runs its own code,
whatever its family: only the Linear that computes logits is hooked, and gets an input without rows.
What the family's code does to its output (a scale, a soft cap) is read from the config. A head that
computes logits in yet another way is detected by a test on a few tokens, and full logits are
computed instead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.models.heads import logits_in
from attar.numerics.logits import Head, HeadLogits, Logits

TRIED = 8
"""Number of tokens in the test."""
LARGE = 100.0
"""The largest logit in the test is scaled to this value."""
SAME = 1e-4
"""Maximum difference of logits, absolute and relative: float32 sums in another order."""

_tried: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
"""Whether a model's logits equal those of `_head_of`."""


def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether a model's logits can be computed for a few rows at a time."""
    return _head_of(model) is not None and _is_own(model)


def run_to_logits(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], **settings: Any
) -> tuple[Any, Logits]:
    """Run the model on a batch; return its output and its logits, as in `logits_in`. Logits are
    lazy if the head allows it, and have shape (B, 0) without a head.

    Args:
        settings: further arguments of the model's call.
    """
    if has_plain_head(model):
        return _run_to_lazy(model, inputs, **settings)
    raw = model(**inputs, **settings)
    logits = logits_in(raw)
    if logits is None:
        first = next(iter(inputs.values()))
        logits = torch.zeros(len(first), 0, device=first.device)
    return raw, logits


def run_to_head(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], **settings: Any
) -> tuple[Any, Tensor]:
    """Run the model on a batch; return its output, with logits for no token, and the input of its
    language head, (B, T, D), after everything before the head (a last norm, T5's scaling)."""
    with _head_reads(model, lambda hidden: hidden[:, :0]) as seen:  # logits of no token
        raw = model(**inputs, **settings)
    return raw, seen[0]


@contextmanager
def _head_reads(
    model: PreTrainedModel, change: Callable[[Tensor], Tensor]
) -> Generator[list[Tensor]]:
    """While active, replace the language head's input by `change` of it; yields the original
    inputs.
    """
    seen: list[Tensor] = []

    def read(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(given[0])
        return (change(given[0]), *given[1:])

    head: Any = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(read)
    try:
        yield seen
    finally:
        hook.remove()


def _head_of(model: PreTrainedModel) -> Head | None:
    """The head, if it is an unmodified Linear."""
    linear: Any = model.get_output_embeddings()
    if type(linear) is not nn.Linear or linear._forward_hooks or linear._forward_pre_hooks:
        return None
    config: Any = model.config
    scale = (getattr(config, "logit_scale", None) or 1.0) / (
        getattr(config, "logits_scaling", None) or 1.0
    )  # in Cohere and Granite
    bias: Tensor | None = linear.bias
    added: Tensor | None = getattr(model, "final_logits_bias", None)  # in BART
    if added is not None:
        bias = added[0] if bias is None else bias + added[0]
    return Head(linear.weight, bias, scale, getattr(config, "final_logit_softcapping", None))


def _run_to_lazy(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], **settings: Any
) -> tuple[Any, HeadLogits]:
    head = _head_of(model)
    assert head is not None
    raw, hidden = run_to_head(model, inputs, **settings)
    device = hidden.device.type
    is_cast = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
    precision = torch.get_autocast_dtype(device) if is_cast else None
    return raw, HeadLogits(head, hidden, precision)


def _is_own(model: PreTrainedModel) -> bool:
    """Whether the logits of `_head_of` equal the model's own; tested at the first call."""
    if model not in _tried:
        was_training = model.training
        model.eval()
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            _tried[model] = _agrees(model)
        model.train(was_training)
    return _tried[model]


def _agrees(model: PreTrainedModel) -> bool:
    ids = torch.arange(TRIED, device=model.device)[None] % model.config.get_text_config().vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    _, logits = _run_to_lazy(model, inputs)
    every = torch.ones_like(ids).nonzero(as_tuple=True)
    # large logits, as after training: otherwise a soft cap would have no visible effect
    largest = float(logits[every].abs().max())
    factor = LARGE / largest if 0 < largest < LARGE else 1.0
    with _head_reads(model, lambda hidden: factor * hidden):
        own = model(**inputs).logits
    found = HeadLogits(logits.head, factor * logits.hidden)[every]
    if own.numel() != found.numel():
        return False
    own = own.view_as(found).to(found.dtype)
    return torch.allclose(found, own, rtol=SAME, atol=SAME, equal_nan=True)
