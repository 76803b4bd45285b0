"""Whether a prediction is a row or a token is told by the labels' shape, never by counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from attar.losses.targets import Targets
from attar.training.teaching.rows import AskedRows, survey


class OneEach:
    """Rows of two tokens with one label each: the row's, or that of its one predicted token."""

    lengths = np.full(3, 2)

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        ones = torch.ones(len(rows), 2, dtype=torch.int64)
        inputs = {"input_ids": ones * 7, "attention_mask": ones}
        return inputs, Targets(self.labels[rows], {"decoder": ones})


@pytest.mark.parametrize(
    ("labels", "per_token"), [([1, 0, 1], False), ([[4, -1], [5, -1], [-1, 6]], True)]
)
def test_one_labelled_token_a_row_is_still_a_token(
    labels: list[int], per_token: bool, tmp_path: Path
) -> None:
    rows = survey(OneEach(torch.tensor(labels)), 2, ("input_ids",))  # pyright: ignore
    assert rows.per_token is per_token and rows.predictions.total == 3
    rows.write(tmp_path, 0)
    kept = AskedRows.read(tmp_path, 0, ("decoder",), per_token=per_token)
    assert kept.per_token is per_token
    np.testing.assert_array_equal(kept.positions, rows.positions)
