"""The same documents make the same chunks, whatever the format of the files that hold them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import corpora
from attar.data.corpus.token_store import Corpus

NO_SOURCE = {"source_column": None, "shard_tokens": 2**20}


def _jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def _parquet(texts: list[str]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), stream, row_group_size=7)
    return stream.getvalue()


def _csv(texts: list[str]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([["text", "n"], *([t, "1"] for t in texts)])
    return stream.getvalue().encode()


def _tsv(texts: list[str]) -> bytes:
    lines = ["text\tn", *(f"{text}\t1" for text in texts)]
    return ("\n".join(lines) + "\n").encode()


def _txt(texts: list[str]) -> bytes:
    return ("\n".join(texts) + "\n").encode()


FORMATS: dict[str, tuple[Callable[[list[str]], bytes], Callable[[bytes], bytes]]] = {
    "jsonl": (_jsonl, bytes),
    "jsonl.zst": (_jsonl, zstandard.compress),
    "csv.gz": (_csv, gzip.compress),
    "csv.zst": (_csv, zstandard.compress),
    "tsv.zst": (_tsv, zstandard.compress),
    "txt.zst": (_txt, zstandard.compress),
    "txt": (_txt, bytes),
    "parquet": (_parquet, bytes),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    corpora.write_tokenizer(folder / "model")
    return folder


def _digests(folder: Path, form: str) -> list[int]:
    """The digests of the chunks of the documents in a folder of two files of one format."""
    texts, place = corpora.texts(40), folder / form
    write, pack = FORMATS[form]
    place.mkdir()
    parts = {"part0": texts[:13], "part1": texts[13:], "validation": texts[:2]}
    for stem, rows in parts.items():
        (place / f"{stem}.{form}").write_bytes(pack(write(rows)))
    made, metrics = corpora.tokenized(
        folder, f"{form}_corpus", path=f"{form}/*.{form}", settings=NO_SOURCE
    )
    assert metrics["documents"] == 40
    return np.concatenate([shard.digest for shard in Corpus.open(made.folder).shards]).tolist()


def test_a_format_changes_no_chunk(folder: Path) -> None:
    found = {form: _digests(folder, form) for form in FORMATS}
    assert len(found["jsonl"]) > 20
    assert [form for form in FORMATS if found[form] != found["jsonl"]] == []
