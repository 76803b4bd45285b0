"""Diversity of texts: the Vendi score of a sample, from an encoder's embeddings.

A Vendi score grows with the sample, so only samples of the same size can be compared. Embeddings
are an encoder's last hidden states, averaged over the tokens of a text's beginning.

The confidence interval is a delete-a-group jackknife: the score is recomputed without each tenth of
the sample, se² = (g − 1)/g · Σ (s₍ⱼ₎ − s̄)². It estimates the variation between samples of the same
texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attar.data.batches import shortest_first
from attar.data.tokenize import TextEncoder
from attar.errors import NonFiniteError
from attar.models.architecture import input_names_of
from attar.models.embedder import pooled
from attar.models.load import build_model, check_length
from attar.numerics.vendi import second_moments, vendi_score
from attar.scoring.config import Diversity
from attar.scoring.rows import score_rows
from attar.step import StepContext
from attar.tasks.embedding import Embedding

GROUPS = 10
NORMAL_95 = 1.96
TEXTS_AT_ONCE = 32


def scored_with_interval(embeddings: NDArray[np.floating]) -> dict[str, Any]:
    """Vendi score of a sample, with its 95 % confidence interval.

    Args:
        embeddings: (N, D), in random order.
    """
    groups = min(GROUPS, len(embeddings))
    moments = [second_moments(embeddings[group::groups]) for group in range(groups)]
    total = np.sum(moments, axis=0)
    score = vendi_score(total)
    found: dict[str, Any] = {"vendi": score, "chunks": len(embeddings), "ci95": None}
    if groups == GROUPS:
        without = np.array([vendi_score(total - part) for part in moments])
        error = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
        found["ci95"] = [score - NORMAL_95 * float(error), score + NORMAL_95 * float(error)]
    return found


def text_embeddings(
    config: Diversity, context: StepContext, texts: list[str]
) -> NDArray[np.float32]:
    """Mean-pooled last hidden states of each text's beginning, (N, D).

    Raises:
        AttarError: the encoder cannot be used.
        StoppedError: a stop was requested.
    """
    loaded = build_model(config.model, context.inputs, context.recipe_folder, None, context.seed)
    model: Any = loaded.model.base_model
    check_length(model.config, config.max_length, config.model)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    encoder = TextEncoder.from_folder(
        loaded.folder, config.max_length, input_names_of(model.config)
    )
    encoded = encoder.encode([(text,) for text in texts])

    def mean_state(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        inputs = {name: torch.from_numpy(ids) for name, ids in batch.items()}
        states = model(**inputs).last_hidden_state
        return pooled(states, inputs["attention_mask"], Embedding(normalize=False)).numpy()

    whose = f"{context.name}: diversity.model {config.model!r}"
    title, batches = f"  {context.name}: embeddings", shortest_first(encoded.lengths, TEXTS_AT_ONCE)
    counted = context.counted(title, len(texts), "the diversity of texts")
    with torch.inference_mode(), counted as after_batch:
        embeddings = score_rows(mean_state, encoded, batches, whose, after_batch)
    if not embeddings.any(axis=1).all():
        raise NonFiniteError(f"{whose} gives embeddings that are zero; name another encoder")
    return embeddings
