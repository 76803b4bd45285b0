"""The two stages of writing, apart: what reads a text, and what writes one more token after it.

    prefill        of an encoder-decoder its encoder; of a decoder alone a pass over the text that
                   keeps keys and values, with the head on the last token only
    decode_step    the next token of each row; after an encoder, the one after the start token

Each can be called any number of times and does the same work every time: a step's own keys and
values are cut off again. A state of one size (Mamba, a full sliding window) moves on instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.generation import start_of
from attar.models.sampling import Reader, has_cache


@dataclass(frozen=True)
class Stages:
    """Both stages on one batch of texts."""

    prefill: Callable[[], object]
    decode_step: Callable[[], object]


def stages_of(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Stages | None:
    """The stages on texts (B, T) without padding; None: the model keeps nothing of what it read, so
    it has no steps.

    Args:
        model: with a language head, in eval mode.
    """
    if not has_cache(model):
        return None
    return (_behind_an_encoder if model.config.is_encoder_decoder else _alone)(model, ids, mask)


def _alone(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Stages:
    reader = Reader(model, mask, use_cache=True)

    @torch.inference_mode()
    def prefill() -> object:
        return Reader(model, mask, use_cache=True).read(ids)

    @torch.inference_mode()
    def decode_step() -> object:
        logits = reader.read(ids[:, -1:])
        reader.forget_last()
        return logits

    with torch.inference_mode():
        reader.read(ids)
    return Stages(prefill, decode_step)


def _behind_an_encoder(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Stages:
    encoder: Any = model.get_encoder()
    start = torch.full_like(ids[:, :1], start_of(model))

    @torch.inference_mode()
    def prefill() -> Any:
        return encoder(input_ids=ids, attention_mask=mask)

    @torch.inference_mode()
    def written(cache: Any) -> Any:
        return model(
            encoder_outputs=encoded,
            attention_mask=mask,
            decoder_input_ids=start,
            past_key_values=cache,
            use_cache=True,
        )

    def decode_step() -> object:
        given = written(cache)
        cache.crop(-1)
        return given.logits

    encoded = prefill()
    cache = written(None).past_key_values
    return Stages(prefill, decode_step)
