"""Scorers of torch models in memory: logits, or nats of tokens or of whole rows.

The model may be float, simulated or in training. It runs on its device, in eval mode and without
gradients; its train mode is restored. `attar.scoring.label_words` has a third kind of scorer.

Shapes: B rows, T tokens, C classes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.models.head_chunks import run_to_logits
from attar.models.heads import logits_in
from attar.numerics.logits import log_probabilities
from attar.scoring.rows import Batch, Scorer


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to eval mode without gradients, and restore the train mode afterwards."""
    if not model.training:
        with torch.inference_mode():
            yield
        return
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: cached tensors may be used in a backward pass
            yield
    finally:
        model.train()


def head_logits(model: PreTrainedModel) -> Scorer:
    """Logits of a classifier or regressor, float32 (B, C); of a head with a prediction per token,
    (B, T, C); of a language model, (B, T, V)."""

    def answer(batch: Batch) -> np.ndarray:
        with evaluating(model):
            inputs = {n: torch.from_numpy(x).to(model.device) for n, x in batch.items()}
            logits = logits_in(model(**inputs))
            assert logits is not None, "a model without a head is refused"
            return logits.float().cpu().numpy()

    return answer


def token_nats(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """−log p of every token except the first of each row, float32 (B, T − 1).

    Args:
        ids: int64 (B, T) with T ≥ 2, without padding; the last token of a row is not read.
    """
    given = torch.from_numpy(ids).to(model.device)
    with evaluating(model):
        _, logits = run_to_logits(model, {"input_ids": given[:, :-1]}, use_cache=False)
        targets = given[:, 1:]
        index = torch.nonzero(torch.ones_like(targets), as_tuple=True)
        nats = -log_probabilities(logits, index, targets.flatten())
        return nats.view_as(targets).cpu().numpy()


def row_nats(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], labels: Tensor, predicted: Tensor
) -> np.ndarray:
    """Σ −log p over the labelled tokens of each row, in nats, float64 (B,).

    Args:
        inputs: of the model; for an encoder-decoder, including those of its decoder.
        labels: (B, S).
        predicted: which labels count, (B, S).
    """
    with evaluating(model):
        _, logits = run_to_logits(model, inputs, return_dict=True)
        index = torch.nonzero(predicted, as_tuple=True)
        nats = -log_probabilities(logits, index, labels[index])
        sums = nats.new_zeros(len(labels)).index_add(0, index[0], nats)
    return sums.cpu().to(torch.float64).numpy()
