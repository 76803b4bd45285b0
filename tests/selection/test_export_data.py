"""What is exported is what was selected, in every format, and opens with what trainers open it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

import corpora
from attar.data.corpus.token_store import Corpus, memory_map
from attar.data.corpus.view import KEPT_FILE, CorpusView, kept_rows
from attar.errors import DataError, UsageError
from attar.selection.config import ExportDataStep, SelectStep
from attar.selection.export_data import export_data
from attar.selection.select import select
from attar.step import MadeRows

FORMATS = ("jsonl", "parquet", "dataset")


@pytest.fixture(scope="module")
def data(folder: Path, made: MadeRows) -> dict[str, Any]:
    """A corpus of several shards, and a selection from it."""
    step = SelectStep(data="corpus", teacher="teacher", reference="reference", keep=0.3)
    inputs = {each: folder / each for each in ("teacher", "reference")}
    select(step, corpora.context(folder, "kept", {"corpus": made}, inputs=inputs))
    return {"corpus": made, "kept": MadeRows("", folder / "kept", step, 0)}


def _export(folder: Path, known: dict[str, Any], name: str, **settings: Any) -> dict[str, Any]:
    return dict(export_data(ExportDataStep(**settings), corpora.context(folder, name, known)))


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.rglob("train-*")):
        if file.suffix == ".parquet":
            rows += pq.read_table(file).to_pylist()
        else:
            lines = zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read()
            rows += map(json.loads, lines.decode().splitlines())
    return rows


@pytest.mark.parametrize("format", FORMATS)
def test_the_rows_are_the_kept_chunks_with_their_scores(
    folder: Path, data: dict[str, Any], format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more chunks than are written at a time."""
    monkeypatch.setattr("attar.selection.export_data.ROWS_AT_ONCE", 2)
    metrics = _export(folder, data, f"kept_{format}", data="kept", format=format)
    rows = _rows(folder / f"kept_{format}")
    view = CorpusView.of_selection(Corpus.open(folder / "corpus"), folder / "kept")
    assert [row["text"] for row in rows] == list(view.all_texts())
    assert {row["source"] for row in rows} == {"sea", "land"}
    assert sum(row["tokens"] for row in rows) == metrics["tokens"] == view.tokens
    assert len(rows) == metrics["rows"] == len(kept_rows(folder / "kept"))
    files = list((folder / f"kept_{format}").rglob("train-*"))
    assert metrics["files"] == len(files) > 1
    assert {file.parent.name for file in files} == {
        "data" if format == "dataset" else "kept_" + format
    }
    assert metrics["data"] == "kept"
    assert list(rows[0]) == metrics["columns"]
    kept = memory_map(folder / "kept" / KEPT_FILE)
    for name in ("teacher", "reference"):
        wanted = kept[name].tolist()
        assert [row[f"log_p_{name}"] for row in rows] == pytest.approx(wanted, rel=1e-6)
    scores = (kept["teacher"] - kept["reference"]).tolist()
    assert [row["score"] for row in rows] == pytest.approx(scores, rel=1e-6)


def test_a_corpus_has_no_scores_and_its_parts(folder: Path, data: dict[str, Any]) -> None:
    metrics = _export(folder, data, "reserved", data="corpus", part="reserved", format="parquet")
    rows = _rows(folder / "reserved")
    view = CorpusView(Corpus.open(folder / "corpus"), "reserved")
    assert [row["text"] for row in rows] == list(view.all_texts())
    assert metrics["columns"] == list(rows[0]) == ["text", "source", "tokens"]
    [file, *_] = (folder / "reserved").glob("*.parquet")
    assert pq.read_metadata(file).row_group(0).column(0).compression == "ZSTD"


def test_a_data_set_opens_by_its_path_as_one_of_the_hub(folder: Path, data: dict[str, Any]) -> None:
    datasets = pytest.importorskip("datasets")
    _export(folder, data, "opened", data="kept", format="dataset")
    opened = datasets.load_dataset(
        str(folder / "opened"), split="train", cache_dir=str(folder / "cache")
    )
    assert opened.to_list() == _rows(folder / "opened")
    card = (folder / "opened" / "README.md").read_text()
    assert all(f"| `{column}` |" in card for column in opened.column_names)


@pytest.mark.parametrize("format", FORMATS)
def test_equal_chunks_give_equal_bytes(folder: Path, data: dict[str, Any], format: str) -> None:
    for name in ("once", "again"):
        _export(folder, data, f"{name}_{format}", data="kept", format=format)
    once, again = (
        {file.name: file.read_bytes() for file in (folder / f"{name}_{format}").rglob("*.*")}
        for name in ("once", "again")
    )
    assert once == again


def test_what_has_no_chunks_is_refused(folder: Path, data: dict[str, Any]) -> None:
    from attar.data.config import FilesData

    texts = FilesData(path="texts", text="text", label_names=None)
    with pytest.raises(UsageError, match="'texts' is not a corpus"):
        _export(folder, {"texts": texts}, "none", data="texts")
    unreserved, _ = corpora.tokenized(folder, "unreserved", settings={"reserve": 0.0})
    with pytest.raises(DataError, match="has no chunks in this part"):
        _export(folder, {"corpus": unreserved}, "none", data="corpus", part="reserved")
