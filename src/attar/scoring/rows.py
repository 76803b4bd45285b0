"""The loop that computes numbers for each row with a model.

    batches of rows, longest first → outputs of the model → back in the order of the rows

Used by training's validation, `evaluate`, the studies, quantization's choices and the parity gate,
which differ only in their `Scorer`: `attar.scoring.in_memory` has those for torch models,
`attar.scoring.forms` those for model folders. Sorted rows need little padding, and with the longest
first, a batch that does not fit into memory fails at once. Imports no torch. `score_tokens` is for
models with a prediction per token.

Shapes: N rows, B rows of a batch, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from attar.data.batches import shortest_first
from attar.data.tokenize import Encoded
from attar.numerics.metrics import require_finite

Batch = Mapping[str, np.ndarray]
Scorer = Callable[[Batch], np.ndarray]
"""int64 inputs (B, T) → numbers (B, …)."""
AfterBatch = Callable[[int], None]
"""Called with the number of rows just done; may raise to stop."""


def longest_first(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All rows in batches of similar length; only the first may be smaller.

    Example:
        >>> [rows.tolist() for rows in longest_first(np.array([3, 9, 4]), 2)]
        [[1], [0, 2]]
    """
    return shortest_first(lengths, batch_size)[::-1]


def score_batches(
    answer: Callable[[np.ndarray], np.ndarray],
    batches: Sequence[np.ndarray],
    model: str,
    after_batch: AfterBatch = lambda rows: None,
) -> np.ndarray:
    """The output of `answer` for each row, (N, …), in the order of the rows.

    Args:
        answer: row numbers (B,) → numbers (B, …).
        batches: every row number occurs once.
        model: name of the model in messages.

    Raises:
        NonFiniteError: a number is NaN or infinite.
    """
    found = []
    for rows in batches:
        found.append(answer(rows))
        after_batch(len(rows))
    answers = np.concatenate(found)
    in_order = np.empty_like(answers)
    in_order[np.concatenate(batches)] = answers
    require_finite(in_order, model)
    return in_order


def score_rows(
    answer: Scorer,
    encoded: Encoded,
    batches: Sequence[np.ndarray],
    model: str,
    after_batch: AfterBatch = lambda rows: None,
    padded: Callable[[int], int] = lambda tokens: tokens,
) -> np.ndarray:
    """The output of `answer` for each encoded row, (N, …). Raises as `score_batches`.

    Args:
        padded: number of tokens of a batch's longest row → width to pad the batch to.
    """

    def of_rows(rows: np.ndarray) -> np.ndarray:
        width = padded(int(encoded.lengths[rows].max()))
        return answer(encoded.batch(rows, pad_to=width))

    return score_batches(of_rows, batches, model, after_batch)


def score_tokens(
    answer: Scorer,
    encoded: Encoded,
    batches: Sequence[np.ndarray],
    model: str,
    after_batch: AfterBatch = lambda rows: None,
    padded: Callable[[int], int] = lambda tokens: tokens,
) -> np.ndarray:
    """The output of `answer` for each token of `encoded.ids`, float32 (tokens, C), without padding.

    Args:
        answer: int64 inputs (B, T) → (B, T, C).
        batches, model, after_batch, padded: as in `score_rows`.

    Raises:
        NonFiniteError: a number is NaN or infinite.
    """
    found: np.ndarray | None = None
    for rows in batches:
        lengths = encoded.lengths[rows]
        logits = answer(encoded.batch(rows, pad_to=padded(int(lengths.max()))))
        if found is None:
            found = np.empty((len(encoded.ids), logits.shape[-1]), np.float32)
        for row, length, values in zip(rows, lengths, logits, strict=True):
            found[encoded.starts[row] : encoded.starts[row] + length] = values[:length]
        after_batch(len(rows))
    assert found is not None, "a split without rows is refused"
    require_finite(found, model)
    return found
