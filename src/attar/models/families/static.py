"""A model that is a single embedding table: a token's vector does not depend on its context.

transformers has no class for it, so it is defined here. It has no blocks, hence no attention mask,
no positions and no matrix products: a text costs one table row per token. Pooling follows as in any
encoder (`attar.models.embedder`), so the model is saved, quantized, exported and evaluated in the
same way. sentence-transformers opens the folder as a StaticEmbedding, which reads the same tensor,
`embedding.weight`.

`attar.models.static_student` makes such a table from an encoder.

Shapes: B texts, T tokens, W width of a vector, V vocabulary.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from attar.models.config import STATIC_TYPE


class StaticConfig(PreTrainedConfig):
    """Sizes of the table."""

    model_type = STATIC_TYPE

    vocab_size: int = 30522
    hidden_size: int = 256
    pad_token_id: int | None = 0
    initializer_range: float = 0.02


class StaticModel(PreTrainedModel):
    """Token ids → rows of a table."""

    config_class = StaticConfig
    base_model_prefix = "model"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    # an exporter's tracer reads both, and a table of integers is a buffer, not a parameter
    @property
    def device(self) -> torch.device:
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters()), torch.float32)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutput:
        """Look up the rows, (B, T, W)."""
        states = self.embedding(input_ids)
        return BaseModelOutput(last_hidden_state=states, hidden_states=(states,))
