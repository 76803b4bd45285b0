"""Scorers of chunks: a language model's log p, or a proxy's prediction.

Everything is computed in float32: two passes in bf16 differ by about 1e-2 nats per token, and
`select` uses differences. The device is the one used for training. Memory: one batch, and the
logits of several hundred tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from attar.data.corpus.token_store import Corpus
from attar.errors import ModelError
from attar.models.head_chunks import run_to_logits
from attar.models.load import causal_model
from attar.models.sources.references import resolve_model
from attar.numerics.logits import log_probabilities
from attar.selection.config import ScoreStep
from attar.selection.proxy_model import ProxyScorer, is_proxy, load_proxy
from attar.special_tokens import open_tokenizer, tokenizer_digest
from attar.step import StepContext
from attar.training.objectives.spans import padded
from attar.training.update.precision import device_here


class Scorer(Protocol):
    """A model that computes a number for each chunk."""

    quantity: ClassVar[str]
    """Name of the field of `ShardScores` with these numbers."""
    model: PreTrainedModel
    vocabulary: int
    """Number of token ids that the model has embeddings for."""

    def __call__(self, chunks: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """A number for each chunk of a batch."""
        ...

    def summary(self, total: float, chunks: int, tokens: int) -> dict[str, float | None]:
        """A mean for the result.

        Args:
            total: sum of the numbers of all chunks.
            tokens: number of predicted tokens in these chunks.
        """
        ...


def open_scorer(config: ScoreStep, context: StepContext, corpus: Corpus) -> Scorer:
    """The scorer for a score step's model.

    Raises:
        ModelError: it cannot read this corpus, or is not a causal language model.
    """
    folder = resolve_model(config.model, context.inputs, context.recipe_folder)
    if is_proxy(folder):
        proxy = load_proxy(folder).to(device_here())
        require_fit(proxy.body, folder, corpus, context.name)
        return ProxyScorer(proxy)
    loaded = causal_model(config.model, context)
    require_fit(loaded.model, loaded.folder, corpus, context.name)
    loaded.model.to(device_here())  # pyright: ignore[reportArgumentType]
    return LanguageScorer(loaded.model)


class LanguageScorer:
    """log p of a chunk: the sum over all tokens except the first."""

    quantity: ClassVar[str] = "log_p"

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval()
        columns = int(model.config.get_text_config().vocab_size)
        table: Any = model.get_input_embeddings()
        self.vocabulary = min(columns, table.num_embeddings)

    @torch.inference_mode()
    def __call__(self, chunks: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """The sum for each chunk, accumulated in float32."""
        arrays = padded(chunks, pad=0)
        ids, mask = (torch.from_numpy(array).to(self.model.device) for array in arrays)
        if ids.shape[1] < 2:
            return np.zeros(len(chunks), np.float32)
        # the last token is predicted but never read; padding is on the right
        inputs = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}
        is_predicted = mask[:, 1:].bool()
        _, logits = run_to_logits(self.model, inputs, use_cache=False)
        index = is_predicted.nonzero(as_tuple=True)
        found = log_probabilities(logits, index, ids[:, 1:][index])
        sums = found.new_zeros(len(chunks)).index_add_(0, index[0], found)
        return sums.cpu().numpy()

    def summary(self, total: float, chunks: int, tokens: int) -> dict[str, float | None]:
        return {"nll": -total / tokens if tokens else None}


def require_fit(model: PreTrainedModel, folder: Path, corpus: Corpus, step: str) -> None:
    """Raise ModelError if a model has another tokenizer than the corpus, or cannot read whole
    chunks.
    """
    if tokenizer_digest(open_tokenizer(folder)) != corpus.about["tokenizer"]:
        raise ModelError(
            f"{step}: the tokenizer of {folder} is not the one the corpus was made with; tokenize "
            "the data with this model's tokenizer, and only compare scores of the same corpus"
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and corpus.about["max_length"] > positions:
        raise ModelError(
            f"{step}: the corpus has chunks of {corpus.about['max_length']} tokens, the model has "
            f"{positions} positions; tokenize with max_length = {positions} or less"
        )
