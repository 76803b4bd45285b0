"""Negative log-likelihood of validation texts under a language model.

nll = Σ −log p(token | what came before) / tokens      nats a token
perplexity = exp(nll)            bits_per_byte = Σ −log₂ p / bytes of the text
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from attar.numerics.metrics import LARGEST_EXPONENT
from attar.scoring.in_memory import row_nats
from attar.scoring.rows import AfterBatch, longest_first, score_batches
from attar.training.objectives.examples import Examples


def nats_of_rows(
    model: PreTrainedModel, examples: Examples, batch_size: int, after_batch: AfterBatch
) -> np.ndarray:
    """Σ −log p over each row's labelled tokens, in nats, float64 (N,).

    Raises:
        NonFiniteError: one is NaN or infinite.
    """

    def of_rows(rows: np.ndarray) -> np.ndarray:
        inputs, targets = examples.batch(rows, model.device)
        return row_nats(model, inputs, targets.labels, targets.predicted)

    batches = longest_first(examples.lengths, batch_size)
    return score_batches(of_rows, batches, "the model", after_batch)


def validate_running_text(
    model: PreTrainedModel,
    examples: Examples,
    metrics: Sequence[str],
    batch_size: int,
    after_batch: AfterBatch,
    *,
    tokens: int,
    num_bytes: int,
) -> dict[str, float]:
    """Those of nll, perplexity and bits_per_byte that are asked for, and "loss", the nll.

    Args:
        tokens: of all rows; the first one of a row is not predicted, so its bytes do not count.
        num_bytes: of all rows' text.
    Raises:
        NonFiniteError: a prediction is NaN or infinite.
    """
    nats_N = nats_of_rows(model, examples, batch_size, after_batch)
    predicted = tokens - len(examples)
    found = language_metrics(float(nats_N.sum()), predicted, num_bytes * predicted / tokens)
    return {name: found[name] for name in metrics} | {"loss": found["nll"]}


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
