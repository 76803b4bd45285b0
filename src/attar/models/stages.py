"""The two stages of text generation as separate functions: reading a text, and generating one more
token.

    prefill        an encoder-decoder's encoder; for a decoder only, a pass over the text that
                   fills the cache, with the head on the last token only
    decode_step    the next token of each row; after an encoder, the one after the start token

Each can be called any number of times and does the same work every time: the keys and values that a
step adds are removed again. A state of fixed size (Mamba, a full sliding window) advances instead.
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
    """Both stages for one batch of texts."""

    prefill: Callable[[], object]
    decode_step: Callable[[], object]


def stages_of(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Stages | None:
    """The stages for texts (B, T) without padding; None: the model has no cache, so there are no
    steps.

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
