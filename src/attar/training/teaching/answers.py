"""Whether stored answers are those of a teacher: it is asked again about a few rows.

Its answers now and then differ by rounding: of the storage, and of sums that another padding takes
in another order. Anything beyond is another teacher, another row, or a damaged file.

    difference = ‖stored − live‖ / ‖live‖, over the real tokens of a row
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attar.errors import ArtifactError
from attar.losses.targets import Outputs
from attar.seeds import generator
from attar.training.teaching.lesson import Lesson
from attar.training.teaching.live import LiveTeacher

ROWS_ASKED = 8
LIMITS = {"fp32": 1e-4, "bf16": 0.1}
"""Largest difference by what the teacher computes in: float32 sums of hundreds of terms in another
order differ by 1e-6; in bf16, six blocks of MiniLM by 0.008 and an untrained head by 0.013. Another
row or another model differs by about 1."""
BF16_STEP = 2.0**-8
"""Largest relative rounding error of one bf16 number."""


class Stored(Protocol):
    """A teacher that answers from a cache."""

    def __call__(self, inputs: Mapping[str, Tensor], rows: np.ndarray | None = None) -> Outputs: ...


def require_same_answers(
    live: LiveTeacher, stored: Stored, precision: str, dtype: str, lesson: Lesson
) -> None:
    """Ask both about random rows, the same ones for the same seed.

    Args:
        precision: what the stored answers were computed in.
        dtype: what hidden states are stored in.
    Raises:
        ArtifactError: with the row, the hidden state and the size of the difference.
    """
    count = min(ROWS_ASKED, len(lesson.train))
    draw = generator(lesson.seed, "cache check")
    rows = np.sort(draw.choice(len(lesson.train), count, replace=False))
    inputs, targets = lesson.train.batch(rows, lesson.device)
    is_bf16 = precision == "bf16"
    with torch.autocast(lesson.device.type, torch.bfloat16, enabled=is_bf16):
        now = live(inputs, rows)
    then, predicted = stored(inputs, rows), targets.predicted
    limit = LIMITS[precision]
    if live.needs.teacher_logits:
        _require_near(rows, "the logits", now.logits, then.logits, predicted, limit)
    for stack, states in lesson.states.items():
        for state in states:
            pair = now.hidden[stack][state], then.hidden[stack][state]
            allowed = limit + (BF16_STEP if dtype == "bf16" else 0)
            name = f"hidden state {state} of the {stack}"
            _require_near(rows, name, *pair, targets.masks[stack].bool(), allowed)


def _require_near(
    rows: np.ndarray, name: str, live: Tensor, stored: Tensor, counts: Tensor, limit: float
) -> None:
    for row, difference in _differences(rows, live, stored, counts):
        if not difference <= limit:  # NaN is no small difference
            raise ArtifactError(
                f"the cache is not of this teacher: train row {row}, {name}: the stored answer "
                f"differs from the live one by {difference:.2g} of its length, rounding allows "
                f"{limit:.2g}; run the cache step again"
            )


def _differences(
    rows: np.ndarray, live: Tensor, stored: Tensor, counts: Tensor
) -> Iterator[tuple[int, float]]:
    """Relative difference of each row; of an answer near zero relative to the usual one."""
    usual = float(live[counts].norm(dim=-1).median()) if bool(counts.any()) else 0.0
    for b, row in enumerate(rows):
        one, other = live[b][counts[b]], stored[b][counts[b]]
        size = max(float(one.norm()), usual, torch.finfo(torch.float32).tiny)
        yield int(row), float((one - other).norm()) / size
