"""Settings of a train step that contradict each other are refused with the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from attar.data.corpus.order import ChunkBatches
from attar.training.config import TrainStep


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_steps": 3, "max_tokens": 100}, "remove all but one"),
        ({"batch_tokens": 100}, "holds no example of max_length = 128"),
        ({"minimum_ratio": 0.1, "schedule": "constant"}, "remove minimum_ratio"),
        ({"batch_tokens": 256, "micro_batch_size": 3}, "larger than batch_size 2"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainStep(model="m", data="d", **settings)


def test_a_batch_in_tokens_is_a_number_of_full_examples() -> None:
    step = TrainStep(model="m", data="d", batch_tokens=524_288, max_length=1024)
    assert step.batch_rows == 512
    assert step.num_steps(10**6, 10**9) == 3 * 1954
    assert step.model_copy(update={"max_tokens": 10**8}).num_steps(10**6, 10**9) == 196


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100, 1000])
@pytest.mark.parametrize("epochs", [0.3, 1, 7.5, 100])
def test_a_budget_of_tokens_is_reached_by_less_than_a_batch(rows: int, epochs: float) -> None:
    """Though every epoch ends with a batch that may be short."""
    step, tokens = TrainStep(model="m", data="d"), 24 * rows
    budget = max(1, round(epochs * tokens))
    batches = ChunkBatches(rows, 32, seed=0)
    read = np.cumsum([len(batches.at(n)) * 24 for n in range(step.steps_for(budget, rows, tokens))])
    assert read[-1] >= budget > read[-1] - len(batches.at(len(read) - 1)) * 24
    assert step.rows_read(len(read), rows) * 24 == read[-1]
