"""How well a language model foresees the tokens of texts it does not learn from.

nll = Σ −log p(token | what came before) / tokens      nats a token
perplexity = exp(nll)            bits_per_byte = Σ −log₂ p / bytes of the text
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel

from attar.errors import NonFiniteError
from attar.losses.predictions import cross_entropy, per_example
from attar.losses.term import Needs
from attar.numerics.metrics import LARGEST_EXPONENT
from attar.training.forward import forward
from attar.training.objectives.evaluating import evaluating, in_order_of_length
from attar.training.objectives.examples import Examples


def nats_of_rows(
    model: PreTrainedModel, examples: Examples, batch_size: int, after_batch: Callable[[], None]
) -> np.ndarray:
    """Σ −log p over each row's labelled tokens, in nats, float64 (N,).

    Raises:
        NonFiniteError: one is no number.
    """
    nats_N = np.zeros(len(examples))
    with evaluating(model):
        for rows in in_order_of_length(examples.lengths, batch_size):
            inputs, targets = examples.batch(rows, model.device)
            logits = forward(model, inputs, Needs()).logits
            sums = per_example(targets, cross_entropy, logits, targets.labels)
            nats_N[rows] = sums.cpu().to(torch.float64).numpy()
            after_batch()
    return finite(nats_N)


def finite(nats: np.ndarray) -> np.ndarray:
    """The same −log-likelihoods, one row of numbers or one number for each row of the split.

    Raises:
        NonFiniteError: one is no number.
    """
    bad = np.unique(np.argwhere(~np.isfinite(nats))[:, 0])
    if len(bad):
        raise NonFiniteError(
            f"the negative log-likelihood of {len(bad)} of {len(nats)} validation rows is not "
            f"finite (first: row {bad[0]}), so the weights no longer are what they should be; "
            "earlier checkpoints are kept; lower learning_rate or max_grad_norm"
        )
    return nats


def language_metrics(nats: float, tokens: int, num_bytes: float | None = None) -> dict[str, float]:
    """The metrics' values by name; bits_per_byte where the bytes are known.

    Args:
        nats: Σ −log p over `tokens` tokens, which spell `num_bytes` bytes.

    Example:
        >>> {name: round(v, 4) for name, v in language_metrics(math.log(2) * 8, 4, 2).items()}
        {'nll': 1.3863, 'perplexity': 4.0, 'bits_per_byte': 4.0}
    """
    nll = nats / max(tokens, 1)
    found = {"nll": nll, "perplexity": math.exp(min(nll, LARGEST_EXPONENT))}
    return found if not num_bytes else found | {"bits_per_byte": nats / math.log(2) / num_bytes}
