"""A text for each row, scored by ROUGE, and the table it is kept in.

How fast a model writes depends on how much it writes. So the models take turns, batch by batch;
each text is scored against its target row by row, and a metric is the mean of its rows, so that
intervals and differences are the same paired bootstrap as everywhere else.

    tokens_per_s = tokens written / seconds spent writing, batches of `batch_size` rows

    predictions.parquet: row, target, and for each model <name>.prediction and its score by row

Left out: latency of one forward pass, which says little here, and deployed models, which are
encoders.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attar.evaluation.compared import Compared, Judged
from attar.numerics.rouge import rouge_scores
from attar.scoring.rows import longest_first


@dataclass
class Written:
    """What one model wrote to the rows of a split."""

    texts: list[str]
    """In the order of the split."""
    tokens: int = 0
    """Written in all, end tokens included."""
    seconds: float = 0.0
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Metric → value of each row, (N,)."""

    @property
    def tokens_per_s(self) -> float | None:
        return self.tokens / self.seconds if self.seconds else None


def judge_written(compared: Compared, clock: Callable[[], float] = time.perf_counter) -> Judged:
    """Let the models write, keep it, and measure the data's metrics; and how fast they write.

    Args:
        clock: seconds; a test passes its own.
    """
    forms, split = compared.forms, compared.split
    encoded = {name: compared.encode(name) for name in forms}
    found = {name: Written([""] * len(split)) for name in forms}
    characters = np.array([sum(map(len, texts)) for texts in split.texts])  # the same for all
    with compared.progress("rows", len(forms) * len(split)) as after_batch:
        for rows in longest_first(characters, compared.config.batch_size):
            for name, form in forms.items():
                batch = encoded[name].batch(rows)
                began = clock()
                written = form.generate(batch)
                found[name].seconds += clock() - began
                found[name].tokens += written.num_tokens
                for row, text in zip(rows, form.encoder.decode(written.ids), strict=True):
                    found[name].texts[row] = text
                after_batch(len(rows), name)
    for one in found.values():
        one.scores = rouge_scores(one.texts, split.targets or ())
    _write(compared, found)
    metrics = compared.means({name: one.scores for name, one in found.items()})
    return metrics, {name: {"tokens_per_s": one.tokens_per_s} for name, one in found.items()}


def _write(compared: Compared, written: Mapping[str, Written]) -> None:
    """One row a row of the split, in its order."""
    split = compared.split
    columns: dict[str, Any] = {"row": compared.numbers(len(split)), "target": split.targets}
    for name, one in written.items():
        columns[f"{name}.prediction"] = one.texts
        for metric, values in one.scores.items():
            columns[f"{name}.{metric}"] = values.astype(np.float32)
    compared.write(columns)
