"""Numbers come back in the order of the rows, whatever the batches and their padding."""

from __future__ import annotations

import numpy as np
import pytest

from attar.data.tokenize import Encoded
from attar.errors import NonFiniteError
from attar.scoring.rows import longest_first, score_rows, score_tokens

LENGTHS = np.array([3, 7, 2, 5, 4])
STARTS = np.array([0, *np.cumsum(LENGTHS)])
IDS = np.arange(1, STARTS[-1] + 1)
ENCODED = Encoded(
    IDS, 0 * IDS, STARTS, ("input_ids", "attention_mask"), pad_id=0, is_cut=np.zeros(5, bool)
)
BATCHES = longest_first(LENGTHS, 2)


def even(tokens: int) -> int:
    return tokens + tokens % 2


def test_rows_are_answered_in_their_order_and_batches_padded_as_asked() -> None:
    widths, done = list[int](), list[int]()

    def answer(batch: dict[str, np.ndarray]) -> np.ndarray:
        widths.append(batch["input_ids"].shape[1])
        return batch["input_ids"].sum(axis=1)

    found = score_rows(answer, ENCODED, BATCHES, "m", done.append, even)  # type: ignore[arg-type]
    assert found.tolist() == np.add.reduceat(IDS, STARTS[:-1]).tolist()
    assert (widths, done) == ([8, 6, 4], [1, 2, 2])


def test_tokens_are_answered_in_their_order_without_padding() -> None:
    widths, done = list[int](), list[int]()

    def answer(batch: dict[str, np.ndarray]) -> np.ndarray:
        widths.append(batch["input_ids"].shape[1])
        return np.stack([batch["input_ids"], -batch["input_ids"]], axis=2).astype(np.float64)

    found = score_tokens(answer, ENCODED, BATCHES, "m", done.append, even)  # type: ignore[arg-type]
    assert (found.tolist(), found.dtype) == (np.stack([IDS, -IDS], 1).tolist(), np.float32)
    assert (widths, done) == ([8, 6, 4], [1, 2, 2])
    with pytest.raises(NonFiniteError, match="m gave NaN"):
        score_tokens(lambda batch: answer(batch) * np.nan, ENCODED, BATCHES, "m")  # type: ignore[arg-type]
