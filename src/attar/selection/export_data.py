"""`run = "export_data"`: write a corpus or a selection as files for other trainers.

    jsonl      train-00000-of-00004.jsonl.zst, …
    parquet    train-00000-of-00004.parquet, …
    dataset    README.md and data/train-00000-of-00004.parquet, …: a hub data set, on disk

A row is a chunk: its text, with a blank line between documents; its source; its number of tokens;
and, for a selection, the mean log-probability per token under each model, and their difference, the
score. `dataset` has the format of a repository on the hub rather than that of `save_to_disk`,
because trainers pass a path to `datasets.load_dataset`, which rejects the latter.

Equal chunks give equal bytes. Memory: the texts of one shard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from numpy.typing import NDArray

from attar.artifacts import disk_errors_explained, write_text
from attar.data.corpus.published import view_of
from attar.data.corpus.token_store import Shard
from attar.data.corpus.view import CorpusView, kept_columns, texts_of
from attar.errors import DataError
from attar.escaping import for_markdown
from attar.selection.config import ExportDataMetrics, ExportDataStep
from attar.step import StepContext

SCORES = {
    "teacher": "log_p_teacher",
    "reference": "log_p_reference",
    "predicted": "predicted_score",
}
"""Column of a selection → its name in the exported files; all in nats per token."""
SCORE = "score"
ROWS_AT_ONCE = 1024
"""Size of a row group."""
Rows = Iterator[Any]
"""Arrow tables."""


def export_data(config: ExportDataStep, context: StepContext) -> ExportDataMetrics:
    """Write one file for each shard that has chunks of the view."""
    view, selection = view_of(context, config.data, config.part)
    if not len(view):
        raise DataError(f"{context.name}: data {config.data!r} has no chunks in this part")
    scores = _scores(selection)
    schema = _schema(scores)
    write, suffix = WRITERS[config.format]
    folder = context.folder / "data" if config.format == "dataset" else context.folder
    folder.mkdir(exist_ok=True)
    files = sum(len(rows) > 0 for _, rows in view.shards())
    written = begin = 0
    with context.progress.task(f"  {context.name}", files) as task:
        for shard, rows in view.shards():
            if len(rows):
                context.stop_if_asked("an export")
                here = {name: values[begin : begin + len(rows)] for name, values in scores.items()}
                tables = _tables(shard, rows, view.corpus.about["sources"], here, schema)
                with disk_errors_explained(context.folder):
                    write(folder / f"train-{written:05}-of-{files:05}{suffix}", schema, tables)
                written, begin = written + 1, begin + len(rows)
                task.advance(1)
    if config.format == "dataset":
        write_text(context.folder / "README.md", _card(context, config, view, schema))
    return {
        "data": config.data,
        "format": config.format,
        "rows": len(view),
        "tokens": view.tokens,
        "files": files,
        "columns": list(schema.names),
    }


def _scores(selection: Path | None) -> Mapping[str, Any]:
    """Exported name → the scores of the kept chunks, as memory maps."""
    if selection is None:
        return {}
    kept = kept_columns(selection)
    return {SCORES[name]: kept[name] for name in SCORES if name in kept}


def _schema(scores: Mapping[str, Any]) -> Any:
    fields = [("text", pa.string()), ("source", pa.string()), ("tokens", pa.int32())]
    fields += [(name, pa.float32()) for name in scores]
    if SCORES["teacher"] in scores:
        fields.append((SCORE, pa.float32()))
    return pa.schema(fields)


def _tables(
    shard: Shard,
    rows: NDArray[np.int64],
    sources: Sequence[str],
    scores: Mapping[str, Any],
    schema: Any,
) -> Rows:
    """Some chunks of a shard, one row group at a time.

    Args:
        scores: of these chunks.
    """
    texts = texts_of(shard, rows)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[first : first + ROWS_AT_ONCE]
        places = slice(first, first + len(part))
        columns: dict[str, Any] = {
            "text": [next(texts) for _ in part],
            "source": [sources[n] for n in shard.source[part]],
            "tokens": shard.lengths[part],
            **{name: np.asarray(values[places]) for name, values in scores.items()},
        }
        if SCORE in schema.names:
            columns[SCORE] = columns[SCORES["teacher"]] - columns[SCORES["reference"]]
        yield pa.table(columns, schema=schema)


def _write_parquet(file: Path, schema: Any, tables: Rows) -> None:
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table, row_group_size=ROWS_AT_ONCE)


def _write_jsonl(file: Path, schema: Any, tables: Rows) -> None:
    with file.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as packed:
        for table in tables:
            for row in table.to_pylist():
                packed.write(f"{json.dumps(_plain(row), ensure_ascii=False)}\n".encode())


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Round numbers to the precision of float32."""
    return {
        name: float(str(np.float32(value))) if isinstance(value, float) else value
        for name, value in row.items()
    }


WRITERS: Mapping[str, tuple[Callable[[Path, Any, Rows], None], str]] = {
    "jsonl": (_write_jsonl, ".jsonl.zst"),
    "parquet": (_write_parquet, ".parquet"),
    "dataset": (_write_parquet, ".parquet"),
}
"""Format → function that writes a file, and its extension."""
MEANINGS = {
    "text": "a chunk of documents, which a blank line separates",
    "source": "where its documents come from; empty where the data told no sources apart",
    "tokens": "tokens of the chunk, by the tokenizer of the corpus",
    SCORES["teacher"]: "mean log-probability per token under the teacher, in nats",
    SCORES["reference"]: "the same under the reference",
    SCORES["predicted"]: "score that a proxy predicts, in nats per token",
    SCORE: "log_p_teacher − log_p_reference, by which chunks were selected",
}


def _card(context: StepContext, config: ExportDataStep, view: CorpusView, schema: Any) -> str:
    """README.md of a data set, with the files of its splits for `load_dataset`."""
    rows = "\n".join(f"| `{name}` | {MEANINGS[name]} |" for name in schema.names)
    name = for_markdown(f"{context.recipe.get('name', '')} {config.data}".strip())
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

# {name}

{len(view):,} chunks of text, {view.tokens:,} tokens. Their license is that of the texts they were
made from.

| column | meaning |
|---|---|
{rows}

```python
datasets.load_dataset("path/of/this/folder", split="train")
```
"""
