"""What every model answers to every row, and the table it is kept in.

Rows are sorted by length, so that a batch holds hardly any padding, and the answers are put back in
the order of the split. Logits that are not finite stop the step with the model and the rows: argmax
of NaN is 0, and a broken model would be reported as one that is merely bad.

    predictions.parquet: row, label, and for each model <name>.prediction and <name>.logits
                         (classes in the data's order, whose names are in the table's metadata)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attar.artifacts import disk_errors_explained
from attar.data.tables import Split, TextData
from attar.data.tokenize import Encoded, TextEncoder
from attar.numerics.metrics import require_finite

if TYPE_CHECKING:
    from attar.scoring.forms import Form

Texts = Sequence[tuple[str, ...]]


def logits_over(
    name: str,
    form: Form,
    split: Split,
    batch_size: int,
    after_batch: Callable[[int], None],
    warn: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Logits of every row of the split, float32 (N, C), columns in the model's own order.

    Args:
        name: the model's, for the message.
        after_batch: called with the rows just done.
        warn: told of rows that are longer than the model reads.
    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    encoder = TextEncoder.from_folder(form.folder, form.task.max_length, form.task.input_names)
    encoded = encoder.encode(form.task.texts_read(split.texts))
    if warn is not None:
        warn_of_cut(name, form, encoded, warn)
    by_length = np.argsort(encoded.lengths, kind="stable")[::-1]
    logits = np.empty((len(split), form.task.num_labels), dtype=np.float32)
    for start in range(0, len(split), batch_size):
        rows = by_length[start : start + batch_size]
        width = form.padded(int(encoded.lengths[rows].max()))
        logits[rows] = form.logits(encoded.batch(rows, pad_to=width))
        after_batch(len(rows))
    require_finite(logits, f"model {name!r}")
    return logits


def warn_of_cut(name: str, form: Form, encoded: Encoded, warn: Callable[[str], None]) -> None:
    """Say how many rows a model did not read to their end, if any."""
    if count := int(encoded.is_cut.sum()):
        warn(
            f"model {name!r} reads {form.task.max_length} tokens; {count} of {len(encoded)} rows "
            "have more, and the rest of them was not read"
        )


def write_predictions(
    file: Path,
    data: TextData,
    split: Split,
    predictions: Mapping[str, np.ndarray],
    logits: Mapping[str, np.ndarray],
) -> None:
    """One row a row of the split, in its order. Classes as numbers, named in the metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, pa.Array] = {
        "row": pa.array(np.arange(len(split), dtype=np.int32)),
        "label": pa.array(split.labels),
    }
    for name, predicted in predictions.items():
        narrow = predicted.astype(np.int32 if data.kind.has_classes else np.float32)
        columns[f"{name}.prediction"] = pa.array(narrow)
        flat = pa.array(np.ascontiguousarray(logits[name], dtype=np.float32).ravel())
        columns[f"{name}.logits"] = pa.FixedSizeListArray.from_arrays(flat, logits[name].shape[1])
    told = {"data": data.name, "label_names": json.dumps(data.label_names, ensure_ascii=False)}
    with disk_errors_explained(file.parent):
        pq.write_table(pa.table(columns).replace_schema_metadata(told), file, compression="zstd")
