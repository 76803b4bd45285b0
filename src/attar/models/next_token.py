"""How badly a decoder foresees each next token: −log p(token | those before it in its row).

A row's first token is only read. Logits of a row are (T, V), and V is tens of thousands, so rows
are scored one after another: the whole batch's log-softmax would be as large as the logits again.
Letters: B rows · T tokens · V words.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel


def next_token_nats(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Nats of every token but the first, float32 (B, T − 1).

    Args:
        ids: (B, T) with T ≥ 2, without padding; the last token of a row is not fed.
    """
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    rows = zip(logits, ids[:, 1:], strict=True)
    return torch.stack([cross_entropy(row.float(), after, reduction="none") for row, after in rows])
