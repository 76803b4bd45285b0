"""What a torch model in memory answers to a batch: logits, label words' scores, nats of tokens.

Each function returns an `Scorer`. The model may be float, simulated or in training; it runs in eval
mode, where it is, without gradients, and its train mode is put back.
Shapes: B rows, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from attar.models.choice import Candidates, word_scores
from attar.models.next_token import next_token_nats
from attar.scoring.rows import Batch, Scorer


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for a while; the train mode is put back."""
    if not model.training:
        with torch.inference_mode():
            yield
        return
    model.eval()
    try:
        with torch.no_grad():  # what the model caches meanwhile may be part of a backward pass
            yield
    finally:
        model.train()


def head_logits(model: PreTrainedModel) -> Scorer:
    """Logits of a classifier or regressor, float32 (B, C); of a language model (B, T, V)."""

    def answer(batch: Batch) -> np.ndarray:
        with evaluating(model):
            inputs = {n: torch.from_numpy(x).to(model.device) for n, x in batch.items()}
            return model(**inputs).logits.float().cpu().numpy()

    return answer


def label_word_scores(
    model: PreTrainedModel, candidates: Candidates, *, per_token: bool = False
) -> Scorer:
    """Log-likelihood of each class's words after each row, float32 (B, C)."""

    def answer(batch: Batch) -> np.ndarray:
        with evaluating(model):
            ids, mask = (
                torch.from_numpy(batch[name]).to(model.device)
                for name in ("input_ids", "attention_mask")
            )
            return word_scores(model, candidates, ids, mask, per_token=per_token).cpu().numpy()

    return answer


def token_nats(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """−log p of every token but the first of each row, float32 (B, T − 1), of int64 ids (B, T)."""
    with evaluating(model):
        return next_token_nats(model, torch.from_numpy(ids).to(model.device)).cpu().numpy()
