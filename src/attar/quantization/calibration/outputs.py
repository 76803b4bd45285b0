"""Logits of a batch without padding tokens, stored in a form that fits in memory.

A classifier has a few outputs per text; a language model has V logits per token. The logits of 256
BART summaries are 20,000 rows of 50,265 numbers, 4 GB. The language head is linear, so its *inputs*
(20,000 × 768, 61 MB) are stored instead, and the logits of a batch are computed on demand. This is
exact.

    classifier       states = logits (B, C); (N, C) where every token is answered
    language model   states (N, D) of the N real tokens;   logits = states · Wᵀ + bias  (N, V)

The states are the input of the head, so any operation before it (a final norm, T5's scaling) is
already applied.
Shape letters: `B` texts, `N` real tokens of the last stack, `D` hidden, `C` classes,
`V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.head_chunks import run_to_head
from attar.models.heads import answers_tokens, logits_in
from attar.quantization.calibration.real_tokens import DECODER_MASK, TEXTS_KEY, texts_of


def final_states(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Run `model` on a batch. Returns logits (B, C) of a classifier, logits (N, C) of the real
    tokens of a token classifier, or the inputs (N, D) of a language head.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name != TEXTS_KEY}
    if model.get_output_embeddings() is None:
        outputs = model(**inputs)
        logits = logits_in(outputs)
        if logits is None:
            return outputs[0]
        return logits[texts_of(batch) > 0] if answers_tokens(model) else logits
    _, states = run_to_head(model, inputs, use_cache=False)
    texts = batch[DECODER_MASK] if DECODER_MASK in batch else texts_of(batch)
    return states[texts > 0]


def logits_of(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Logits (B, C) or (N, V) from `final_states`; differentiable."""
    head = model.get_output_embeddings()
    if head is None:
        return states
    logits: Tensor = head(states)
    bias = getattr(model, "final_logits_bias", None)
    logits = logits if bias is None else logits + bias
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


class KeptOutputs(Sequence[Tensor]):
    """Logits of a model, one tensor per batch, computed on demand.

    The model's head must not change while they are in use.
    """

    def __init__(self, model: PreTrainedModel, states: Sequence[Tensor]) -> None:
        self._model, self._states = model, states

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index):  # pyright: ignore
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with torch.no_grad():
            return logits_of(self._model, self._states[index])


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Context manager that disables gradients of the model's parameters."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def real_logits(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """The logits of a batch that `KeptOutputs` would give, with gradient."""
    return logits_of(model, final_states(model, batch))
