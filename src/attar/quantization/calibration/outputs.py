"""What a model finally says of a batch, at real tokens only, and a way to keep it that fits memory.

The problem: a candidate is judged by the model's final outputs. A classifier's are a handful of
numbers a text; a generator's are V logits at every token it writes: 256 summaries of BART are
20,000 rows of 50,265 numbers, 4 GB. The idea: a language head is one linear map, so its *inputs*
(20,000 × 768, 61 MB) say the same, and the logits of one batch are computed from them whenever they
are asked for. Nothing is approximated.

    classifier   states = logits (B, C)
    generator    states (N, D) of the N real decoder tokens;   logits = states · Wᵀ + bias  (N, V)

Left out: keeping only the largest logits, which would be smaller still and no longer the published
loss.
Shape letters: `B` texts, `N` real decoder tokens of a batch, `D` hidden, `C` classes, `V` words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.quantization.calibration.real_tokens import DECODER_MASK, TEXTS_KEY


def final_states(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Run `model` on a batch: its logits (B, C), or, where the batch says what the decoder reads,
    the states (N, D) its language head makes logits of.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name != TEXTS_KEY}
    if DECODER_MASK not in batch:
        outputs = model(**inputs)
        return outputs.logits if hasattr(outputs, "logits") else outputs[0]
    if model.base_model is not model:
        states = model.base_model(**inputs, use_cache=False).last_hidden_state
    else:  # T5 has no model without the head
        seen = model(**inputs, use_cache=False, output_hidden_states=True)
        states = seen.decoder_hidden_states[-1]
    return states[batch[DECODER_MASK] > 0]


def logits_of(model: PreTrainedModel, states: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits (B, C) or (N, V) of `final_states`; a gradient flows through."""
    if DECODER_MASK not in batch:
        return states
    head = model.get_output_embeddings()
    assert head is not None, "a model that reads decoder texts here has a language head"
    logits: Tensor = head(states)
    bias = getattr(model, "final_logits_bias", None)
    return logits if bias is None else logits + bias


class KeptOutputs(Sequence[Tensor]):
    """The logits of a model, batch by batch, each computed when it is asked for.

    The model's head must stay as it is for as long as they are used.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batches: Sequence[Mapping[str, Tensor]],
        states: Sequence[Tensor],
    ) -> None:
        self._model, self._batches, self._states = model, batches, states

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index):  # pyright: ignore
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with torch.no_grad():
            return logits_of(self._model, self._states[index], self._batches[index])


def real_logits(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits of the batch as `KeptOutputs` tells them, with gradient."""
    return logits_of(model, final_states(model, batch), batch)
