"""A static student: one vector per token, computed from an embedding encoder without training.

The problem: an encoder of six small blocks needs a millisecond per text, and some searches must
embed millions of texts per minute. The idea (Model2Vec): embed each token of the encoder's
vocabulary separately, and store the vectors as a table. A text's vector is then the mean of its
tokens' rows.

    e_t = encoder([CLS] t [SEP])                   the encoder's own vector, pooled
    u_t = (e_t − mean(e)) P                        P: the first W principal axes of all e
    row t = a / (a + p_t) · u_t                    p_t ∝ 1 / rank: the share of t in texts (Zipf)

The mean over all tokens has no meaning and would dominate every text's vector, and so would
frequent words; the mean is subtracted, and frequent words get smaller weights (smooth inverse
frequency). Special tokens get rows of zeros, so that they do not change the direction of a text's
vector. Training the table afterwards (a contrastive loss, or a teacher's similarities) improves it.

A token's rank is its position in the vocabulary, which tokenizers write in order of decreasing
frequency, so no texts are needed. Not included: words that are not tokens, and frequencies counted
in the training texts, which were no better on STS-B.

Sources: Tulkens and van Dongen 2024, "Model2Vec: Fast State-of-the-Art Static Embeddings"; Arora et
al. 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", section 3, for the weights.

Shapes: V vocabulary, D the encoder's width, W the student's, N embedded tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.config import STATIC_TYPE
from attar.special_tokens import open_tokenizer
from attar.tasks.embedding import Embedding

SMOOTH = 1e-4
"""a: a token with this share of all tokens gets weight ½. Model2Vec's value."""
TOKENS_AT_ONCE = 512


def static_config(
    encoder: Mapping[str, Any], width: int, embedding: Embedding | None = None
) -> dict[str, Any]:
    """The `config.json` of a static student, from that of its encoder.

    Args:
        embedding: the encoder's, which may keep fewer numbers than its hidden size.
    Raises:
        ModelError: `width` exceeds the width of the encoder's vectors.
    """
    hidden = encoder.get("hidden_size") or encoder.get("dim")
    numbers = (embedding and embedding.width) or hidden
    if isinstance(numbers, int) and width > numbers:
        raise ModelError(
            f"static_width is {width}, and the encoder's vectors have {numbers} numbers, which are "
            f"all that there is to keep; set static_width = {numbers} or less"
        )
    kept = {name: encoder[name] for name in ("vocab_size", "pad_token_id") if name in encoder}
    return {"model_type": STATIC_TYPE, "hidden_size": width, **kept}


def fill_table_(student: PreTrainedModel, encoder: Any) -> None:
    """Write the vectors of an encoder's tokens into a new static student.

    Args:
        encoder: a `LoadedModel` for sentence embedding.
    """
    tokenizer = open_tokenizer(encoder.folder)
    table: Any = student.get_input_embeddings()
    shown = plain_tokens(tokenizer)
    shown = shown[shown < table.num_embeddings]
    rows = static_rows(_alone(encoder, tokenizer, shown), table.embedding_dim)
    with torch.no_grad():
        table.weight.zero_()
        table.weight[torch.from_numpy(shown)] = rows.to(table.weight.dtype)


def static_rows(vectors: Float[Tensor, "N D"], width: int) -> Float[Tensor, "N W"]:
    """The rows of the table, float64.

    Law: at full width, the rows have the same angles as the centred vectors; more frequent tokens
    have shorter rows.

    Args:
        vectors: of the tokens, most frequent first.
    """
    centred = vectors.double() - vectors.double().mean(dim=0)
    _, axes = torch.linalg.eigh(centred.T @ centred)  # increasing: the principal axis is last
    shares = 1 / torch.arange(1, len(vectors) + 1, dtype=torch.float64)
    weights = SMOOTH / (SMOOTH + shares / shares.sum())
    return weights[:, None] * (centred @ axes.flip(-1)[:, :width])


def plain_tokens(tokenizer: Tokenizer) -> Int[np.ndarray, " N"]:
    """Ids of all tokens that represent text."""
    special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    every = tokenizer.get_vocab(with_added_tokens=True)
    ids = (id for token, id in every.items() if not token.startswith("[unused"))
    return np.array(sorted(set(ids) - special), dtype=np.int64)


def _alone(encoder: Any, tokenizer: Tokenizer, shown: np.ndarray) -> Tensor:
    """The encoder's vector of each token, embedded between the special tokens of a text, (N, D)."""
    frame = tokenizer.encode("a")
    inside = [i for i, part in enumerate(frame.sequence_ids) if part is not None]
    before, after = frame.ids[: inside[0]], frame.ids[inside[-1] + 1 :]
    found: list[Tensor] = []
    for begin in range(0, len(shown), TOKENS_AT_ONCE):
        tokens = torch.from_numpy(shown[begin : begin + TOKENS_AT_ONCE])[:, None]
        sides = (torch.tensor([side]).long().expand(len(tokens), -1) for side in (before, after))
        ids = torch.cat([next(sides), tokens, next(sides)], dim=1)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            found.append(encoder.model(**inputs).logits)
    return torch.cat(found)
