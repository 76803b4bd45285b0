"""What models are worth that write text: they write to every row, and are judged by ROUGE.

The problem: there are no logits to compare with a label, and how fast a model writes depends on how
much it writes. The idea: the models take turns, batch by batch, so that a busy moment hits all of
them alike; each text is scored against its target row by row, and a metric is the mean of its rows,
so that intervals and differences are the same paired bootstrap as everywhere else.

    tokens_per_s = tokens written / seconds spent writing, batches of `batch_size` rows

    predictions.parquet: row, target, and for each model <name>.prediction and its score by row

Left out: latency of one forward pass, which says little here, and deployed models, which are
encoders.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attar.artifacts import disk_errors_explained
from attar.data.tables import Split, TextData
from attar.data.tokenize import TextEncoder
from attar.evaluation.glue import known_metrics
from attar.evaluation.predictions import warn_of_cut
from attar.numerics.rouge import rouge_scores
from attar.numerics.statistics import Bootstrapped, bootstrap

if TYPE_CHECKING:
    from attar.scoring.forms import Form


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


def write_all(
    forms: Mapping[str, Form],
    split: Split,
    batch_size: int,
    after_batch: Callable[[int, str], None],
    warn: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Written]:
    """Model → what it wrote; the models take turns.

    Args:
        after_batch: called with the rows just done and the model's name.
        warn: told of rows that are longer than a model reads.
        clock: seconds; a test passes its own.
    """
    encoders = {
        name: TextEncoder.from_folder(form.folder, form.task.max_length, form.task.input_names)
        for name, form in forms.items()
    }
    encoded = {
        name: encoder.encode(forms[name].task.texts_read(split.texts))
        for name, encoder in encoders.items()
    }
    for name, form in forms.items():
        warn_of_cut(name, form, encoded[name], warn)
    found = {name: Written([""] * len(split)) for name in forms}
    by_length = np.argsort([-sum(map(len, texts)) for texts in split.texts], kind="stable")
    for start in range(0, len(split), batch_size):
        rows = by_length[start : start + batch_size]
        for name, form in forms.items():
            batch = encoded[name].batch(rows)
            began = clock()
            written = form.generate(batch)
            found[name].seconds += clock() - began
            found[name].tokens += written.num_tokens
            for row, text in zip(rows, encoders[name].decode(written.ids), strict=True):
                found[name].texts[row] = text
            after_batch(len(rows), name)
    for one in found.values():
        one.scores = rouge_scores(one.texts, split.targets or ())
    return found


def bootstrapped_scores(
    written: Mapping[str, Written], data: TextData, *, resamples: int, seed: int
) -> dict[str, dict[str, Bootstrapped]]:
    """Metric → model → its mean over the rows, and over every resample; models share the draws."""
    return {
        metric: bootstrap(
            metric,
            {name: one.scores[metric] for name, one in written.items()},
            np.zeros(len(next(iter(written.values())).texts)),
            resamples=resamples,
            seed=seed,
        )
        for metric in known_metrics(data)
    }


def write_texts(file: Path, data: TextData, split: Split, written: Mapping[str, Written]) -> None:
    """One row a row of the split, in its order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, pa.Array] = {
        "row": pa.array(np.arange(len(split), dtype=np.int32)),
        "target": pa.array(split.targets),
    }
    for name, one in written.items():
        columns[f"{name}.prediction"] = pa.array(one.texts)
        for metric, values in one.scores.items():
            columns[f"{name}.{metric}"] = pa.array(values.astype(np.float32))
    table = pa.table(columns).replace_schema_metadata({"data": data.name})
    with disk_errors_explained(file.parent):
        pq.write_table(table, file, compression="zstd")
