"""Encoders that compute one vector per text; pooling and normalization are part of the model.

An embedder is transformers' bare model followed by the pooling of `attar.tasks.embedding`. Its
output is called `logits`, like that of every model here, so that it can be calibrated, quantized,
traced, compared and timed like a classifier. It is saved under the bare model's class name; the
pooling is stored in `task.json`, and for other programs in `modules.json`
(`attar.models.sources.sentence_transformers`). A pooler (BERT's, for next-sentence prediction) is
dropped, because it is not used.

Shapes: B texts, T tokens, D hidden size, W width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from attar.models.structure.chains import named_like
from attar.tasks.embedding import Embedding


def pooled(
    states: Float[Tensor, "B T D"], mask: Int[Tensor, "B T"], embedding: Embedding
) -> Float[Tensor, "B W"]:
    """One vector for each text.

    Law: independent of padding; with `normalize`, its length is 1.

    Args:
        mask: 1 for a real token; every text has at least one.
    """
    if embedding.pooling == "mean":
        real_BT1 = mask[..., None].to(states.dtype)
        vectors_BD = (states * real_BT1).sum(dim=1) / real_BT1.sum(dim=1).clamp(min=1)
    elif embedding.pooling == "cls":
        vectors_BD = states[:, 0]
    else:
        places_T = torch.arange(states.shape[1], device=states.device)
        last_B = (mask * places_T).argmax(dim=1)
        vectors_BD = states[torch.arange(states.shape[0], device=states.device), last_B]
    vectors_BW = vectors_BD[:, : embedding.width]
    return functional.normalize(vectors_BW, dim=-1) if embedding.normalize else vectors_BW


@dataclass
class EmbedderOutput(ModelOutput):
    """The bare model's outputs, and the vectors (B, W)."""

    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@cache
def embedder_class(stock: type[PreTrainedModel], embedding: Embedding) -> type[PreTrainedModel]:
    """A subclass of a transformers class that outputs vectors; saved under the original name.

    Args:
        stock: class of the bare model.
    """

    class Embedder(stock):
        embedding_settings: ClassVar[Embedding] = embedding

        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            if isinstance(getattr(self, "pooler", None), nn.Module):
                self.pooler = None

        def forward(
            self,
            input_ids: Tensor,
            attention_mask: Tensor,
            *,
            real_tokens: Tensor | None = None,
            **inputs: Any,
        ) -> EmbedderOutput:
            """The vectors.

            Args:
                real_tokens: (B, T), 1 for a real token, needed if the attention mask has another
                    form; None: the attention mask.
            """
            inputs["return_dict"] = True
            raw = super().forward(input_ids=input_ids, attention_mask=attention_mask, **inputs)
            real = attention_mask if real_tokens is None else real_tokens
            return EmbedderOutput(
                logits=pooled(raw.last_hidden_state, real, embedding),
                last_hidden_state=raw.last_hidden_state,
                hidden_states=raw.hidden_states,
                attentions=raw.attentions,
            )

    return named_like(stock, Embedder)
