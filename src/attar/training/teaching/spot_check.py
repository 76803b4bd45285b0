"""Compare stored outputs with the live teacher's on a few random rows.

Live and stored outputs differ by rounding: in storage, and in sums whose order depends on padding.
A larger difference means another teacher, another row, or a damaged file.

    logits and hidden states    difference = ‖stored − live‖ / ‖live‖, over the tokens of a row
    compressed distributions    log p of the ids stored exactly, beyond one level of the codec:
                                difference = root of the mean of max(|stored − live| − level, 0)²
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attar.errors import ArtifactError
from attar.losses.targets import Outputs
from attar.numerics.logits import Logits, blocks
from attar.numerics.sparse_distributions import SparseLogits
from attar.seeds import generator
from attar.training.teaching.header import CacheHeader
from attar.training.teaching.live import LiveTeacher
from attar.training.teaching.teacher_inputs import TeacherInputs

ROWS_ASKED = 8
LIMITS = {"fp32": 1e-4, "bf16": 0.1}
"""Maximum difference, by the teacher's number format. float32 sums of hundreds of terms in another
order differ by 1e-6; in bf16, six blocks of MiniLM differ by 0.008 and an untrained head by 0.013.
Another row or another model differs by about 1."""
NATS = {"fp32": 1e-3, "bf16": 0.1}
"""Maximum difference of log-probabilities, beyond one level of the codec."""
LOWEST = -87.0
"""log p of the smallest probability in float32."""
BF16_STEP = 2.0**-8
"""Largest relative rounding error of one bf16 number."""


class Stored(Protocol):
    """A teacher that reads its outputs from a cache."""

    def __call__(self, inputs: Mapping[str, Tensor], rows: np.ndarray) -> Outputs: ...


def require_same_answers(
    live: LiveTeacher, stored: Stored, header: CacheHeader, wanted: TeacherInputs
) -> None:
    """Compare both on random rows, which depend only on the seed.

    Raises:
        ArtifactError: states the row, the hidden state and the size of the difference.
    """
    count = min(ROWS_ASKED, len(wanted.train))
    draw = generator(wanted.seed, "cache check")
    rows = np.sort(draw.choice(len(wanted.train), count, replace=False))
    inputs, targets = wanted.train.batch(rows, wanted.device)
    is_bf16 = header.precision == "bf16"
    with torch.autocast(wanted.device.type, torch.bfloat16, enabled=is_bf16):
        now = live(inputs, rows)
    then, predicted = stored(inputs, rows), targets.predicted
    limit = LIMITS[header.precision]
    if live.needs.teacher_logits:
        if then.sparse is not None:
            _require_near_ids(rows, now.logits, then.sparse, predicted, header)
        else:
            _require_near(rows, "the logits", now.logits, then.logits, predicted, limit)
    for stack, states in wanted.loss.taught_states.items():
        for state in states:
            pair = now.hidden[stack][state], then.hidden[stack][state]
            allowed = limit + (BF16_STEP if header.dtype == "bf16" else 0)
            name = f"hidden state {state} of the {stack}"
            _require_near(rows, name, *pair, targets.masks[stack].bool(), allowed)


def _require_near_ids(
    rows: np.ndarray, live: Logits, stored: SparseLogits, counts: Tensor, header: CacheHeader
) -> None:
    """Compare the ids that are stored exactly, one row at a time."""
    codec, limit = header.codec, NATS[header.precision]
    assert codec is not None
    index = torch.nonzero(counts, as_tuple=True)
    for b, row in enumerate(rows):
        places = tuple(axis[index[0] == b] for axis in index)
        total = 0.0
        for part in blocks(len(places[0]), live.shape[-1]):
            inside = tuple(axis[part] for axis in places)
            found = stored[inside]
            ids, p = found.ids[:, : codec.exact], found.weights[:, : codec.exact]
            log_p = p.clamp(min=torch.finfo(torch.float32).tiny).log()
            now = torch.log_softmax(live[inside], dim=-1).gather(1, ids).clamp(min=LOWEST)
            level = (log_p.max(1).values - log_p.min(1).values)[:, None] / (2**codec.bits - 1)
            beyond = (log_p - now).abs() - level
            total += float(beyond.clamp(min=0).square().mean(1).sum())
        difference = (total / max(len(places[0]), 1)) ** 0.5
        if not difference <= limit:  # also true for NaN
            raise ArtifactError(
                f"the cache is not of this teacher: train row {row}, the distributions: the stored "
                f"log-probabilities differ from the live ones by {difference:.2g} nats beyond "
                f"their rounding, the sums of another batch allow {limit:.2g}; run the cache step "
                "again"
            )


def _require_near(
    rows: np.ndarray, name: str, live: Logits, stored: Logits, counts: Tensor, limit: float
) -> None:
    for row, difference in _differences(rows, live, stored, counts):
        if not difference <= limit:  # also true for NaN
            raise ArtifactError(
                f"the cache is not of this teacher: train row {row}, {name}: the stored answer "
                f"differs from the live one by {difference:.2g} of its length, rounding allows "
                f"{limit:.2g}; run the cache step again"
            )


def _differences(
    rows: np.ndarray, live: Logits, stored: Logits, counts: Tensor
) -> Iterator[tuple[int, float]]:
    """Relative difference of each row. If an output is near zero, the difference is relative to the
    usual size.
    """
    index = torch.nonzero(counts, as_tuple=True)
    apart: list[float] = []
    sizes: list[float] = []
    of_tokens: list[Tensor] = []
    for b in range(len(rows)):  # row by row: the full logits would not fit
        places = tuple(axis[index[0] == b] for axis in index)
        one, other = live[places], stored[places]
        apart.append(float((one - other).norm()))
        sizes.append(float(one.norm()))
        of_tokens.append(one.norm(dim=-1))
    norms = torch.cat(of_tokens)
    usual = float(norms.median()) if len(norms) else 0.0
    for row, difference, size in zip(rows, apart, sizes, strict=True):
        yield int(row), difference / max(size, usual, torch.finfo(torch.float32).tiny)
