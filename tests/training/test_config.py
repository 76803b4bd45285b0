"""Settings of a train step that contradict each other are refused with the way out."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from attar.training.config import TrainStep


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_steps": 3, "max_tokens": 100}, "leave one out"),
        ({"batch_tokens": 100}, "holds no example of max_length = 128"),
        ({"minimum_ratio": 0.1, "schedule": "constant"}, "leave minimum_ratio out"),
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
    assert step.model_copy(update={"max_tokens": 10**8}).num_steps(10**6, 10**9) == 195
