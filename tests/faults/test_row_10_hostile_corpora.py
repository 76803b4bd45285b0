"""Row 10: a corpus, scores or a selection that was written to be believed. Each is one message that
names the file, whatever its parts say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

import corpora
from attar.data.corpus.token_store import TEXTS, Corpus, ShardFiles
from attar.errors import ArtifactError
from attar.selection.scores import ShardScores, read_scored, score_file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    corpora.write_documents(folder / "texts", 20)
    corpora.write_tokenizer(folder / "model")
    return corpora.tokenized(folder)[0].folder


@pytest.fixture
def corpus(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "corpus")


def read(folder: Path) -> None:
    """All that a step may ask of a corpus."""
    corpus = Corpus.open(folder)
    corpus.counts()
    for shard in corpus.shards:
        for row in range(len(shard)):
            shard.chunk(row)
        shard.texts()


def require_refused(folder: Path, file: Path, read: Callable[[Path], object] = read) -> None:
    with pytest.raises(ArtifactError) as caught:
        read(folder)
    assert str(file) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


ABOUT: list[dict[str, Any]] = [
    *({"shards": [shard]} for shard in (3, "x", {}, {"chunks": "x", "tokens": 1}, None)),
    *({"shards": [{"chunks": n, "tokens": 1}]} for n in (0, -1, True, 2.0, float("nan"), 10**30)),
    *({"sources": sources} for sources in ([1, 2], [{"a": 1}, None], ["a", "a"], "ab", ["\ud800"])),
    *({"end_id": end_id} for end_id in (-5, 10**30, 1e30, 320, "0", None)),
    *({"vocabulary": size} for size in (-1, 0, 5, 2**40)),
    *({"max_length": length} for length in (-3, 0, True, 24.0, 10**30)),
    *({name: 3} for name in ("data", "tokenizer")),
]


@pytest.mark.parametrize("change", ABOUT, ids=lambda change: json.dumps(change)[:40])
def test_a_description_is_believed_only_in_its_form(corpus: Path, change: dict[str, Any]) -> None:
    file = corpus / "corpus.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    if change == {"vocabulary": 5}:  # only the tokens tell
        require_refused(corpus, corpus / "00000.tokens.safetensors")
    else:
        require_refused(corpus, file, Corpus.open)


def tensor(dtype: str, shape: Any, offsets: list[Any]) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DEEP = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
HEADERS: list[Any] = [
    DEEP,
    [1, 2],
    *(
        dict.fromkeys(("ids", "starts", "source", "part", "document", "digest"), about)
        for about in (
            tensor("I64", [], [0, 8]),
            tensor("I64", [1], [0.0, 8.0]),
            tensor("I64", [10**30], [0, 8]),
            tensor("BF16", [4], [0, 8]),
            tensor("I64", [1], [0, 8]),
            "text",
        )
    ),
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: str(header)[:40])
def test_a_header_is_believed_only_in_its_form(corpus: Path, header: Any) -> None:
    file = corpus / "00000.tokens.safetensors"
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    require_refused(corpus, file, lambda folder: ShardFiles(folder, 0).arrays())


def test_starts_that_overflow_are_refused(corpus: Path) -> None:
    file = corpus / "00000.tokens.safetensors"
    arrays = load_file(file)
    arrays["starts"][1:4] = 2**63 - 1, -(2**63), -1
    assert (np.diff(arrays["starts"]) > 0).all()
    save_file(arrays, file)
    require_refused(corpus, file)


@pytest.mark.parametrize("damage", ["no list", "no text", "no utf-8"])
def test_texts_that_are_none_are_refused(corpus: Path, damage: str) -> None:
    file = corpus / "00000.texts.parquet"
    table = pq.read_table(file)
    pieces = table["pieces"].to_pylist()
    pieces[1] = None if damage == "no list" else [None]
    column = pa.array(pieces, TEXTS[0].type)
    if damage == "no utf-8":
        pieces[1] = [b"\xff"]
        column = pa.array(pieces, pa.list_(pa.binary())).view(TEXTS[0].type)
    pq.write_table(table.set_column(0, "pieces", column), file)
    require_refused(corpus, file)


@pytest.mark.parametrize("rows", [[0, 0, 1], [1, 0, 2], [0, 1, 2**64 - 1], [0, 1, 10**6]])
def test_scores_of_rows_that_do_not_rise_are_refused(corpus: Path, rows: list[int]) -> None:
    opened = Corpus.open(corpus)
    for number, shard in enumerate(opened.shards):
        row = np.array(rows, np.uint64)
        inside = row.astype(np.int64) % len(shard)
        digest, log_p = np.asarray(shard.digest)[inside], np.zeros(len(row), np.float32)
        tokens = np.full(len(row), 5, np.uint32)
        scores = ShardScores(row, tokens, digest, log_p)
        scores.write(score_file(corpus, number))
    folders = {"teacher": corpus, "reference": corpus}
    with pytest.raises(ArtifactError, match="the scores are not of this corpus"):
        read_scored(opened, folders, "kept", may_be_sample=True)
