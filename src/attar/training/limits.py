"""What a model has to offer, asked before the first forward pass: positions and tokens beyond its
tables would be read from outside them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from attar.data.tokenize import Encoded
from attar.errors import ModelError


def require_positions(model: PreTrainedModel, max_length: int, who: str) -> None:
    """Refuse texts longer than a model with learned positions can number.

    Raises:
        ModelError: with both lengths.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa numbers its positions from the padding id on, which uses up the first rows.
            used_up = 0 if module.padding_idx is None else module.padding_idx + 1
            limit = module.num_embeddings - used_up
    if limit is not None and max_length > limit:
        raise ModelError(
            f"{who} has {limit} positions, max_length is {max_length}; "
            f"set max_length = {limit} or less"
        )


def require_embeddings(model: PreTrainedModel, texts: Sequence[Encoded], who: str) -> None:
    """Refuse token ids that a model has no embedding for.

    Raises:
        ModelError: with the largest id and the number of embeddings.
    """
    embeddings = model.get_input_embeddings()
    if not isinstance(embeddings, nn.Embedding):
        return
    largest = max(int(encoded.ids.max(initial=encoded.pad_id)) for encoded in texts)
    if largest >= embeddings.num_embeddings:
        raise ModelError(
            f"{who}: the tokenizer gives token ids up to {largest}, {type(model).__name__} has "
            f"{embeddings.num_embeddings} embeddings; use the tokenizer that belongs to the model"
        )
