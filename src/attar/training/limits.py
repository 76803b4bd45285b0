"""What a model has to offer, asked before the first forward pass: positions and tokens beyond its
tables would be read from outside them.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.structure.families import max_tokens_of


def require_positions(model: PreTrainedModel, max_length: int, who: str) -> None:
    """Refuse texts longer than a model can number, or than it says it was made for.

    Raises:
        ModelError: with both lengths.
    """
    config = model.config
    limit = max_tokens_of(config) or getattr(config, "max_position_embeddings", None)
    if limit is not None and max_length > limit:
        raise ModelError(
            f"{who} has {limit} positions, max_length is {max_length}; "
            f"set max_length = {limit} or less"
        )


def require_embeddings(model: PreTrainedModel, largest_id: int, who: str) -> None:
    """Refuse token ids that a model has no embedding for.

    Raises:
        ModelError: with the largest id and the number of embeddings.
    """
    embeddings = model.get_input_embeddings()
    if not isinstance(embeddings, nn.Embedding):
        return
    if largest_id >= embeddings.num_embeddings:
        raise ModelError(
            f"{who}: the tokenizer gives token ids up to {largest_id}, {type(model).__name__} has "
            f"{embeddings.num_embeddings} embeddings; use the tokenizer that belongs to the model"
        )
