"""Rows 8, 9 and 11 for a corpus: documents that broke off, were damaged, or unpack without end are
refused; nothing of them is published, and the mended file gives the corpus it always gave."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import corpora
from attar.errors import DataError
from attar.recipe.run import run_recipe

ROWS = [
    {"text": text, "source": ("sea", "land")[number % 3 == 0]}
    for number, text in enumerate(corpora.texts(400))
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet(_: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=50, compression="zstd")
    return sink.getvalue().to_pybytes()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "jsonl.gz": gzip.compress,
    "jsonl.zst": zstandard.compress,
    "parquet": parquet,
}


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(share * len(content))]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut near its end": cut(0.98),
    "cut at its beginning": cut(0.01),
    "a flipped byte": flipped,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    corpora.write_model(place / "model")
    (place / "selected.toml").write_text(corpora.RECIPE.partition("[steps.by_teacher]")[0])
    (place / "texts").mkdir()
    (place / "texts" / "validation.jsonl").write_bytes(LINES[:2000].rpartition(b"\n")[0])
    return place


def contents(corpus: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in corpus.iterdir() if f.name != "result.json"}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ending", PACKED)
def test_damaged_documents_are_refused_and_the_mended_ones_make_the_same_corpus(
    place: Path, tmp_path: Path, ending: str, damage: str
) -> None:
    file = place / "texts" / f"train.{ending}"
    whole = PACKED[ending](LINES)
    try:
        file.write_bytes(DAMAGE[damage](whole))
        with pytest.raises(DataError) as caught:
            run_recipe(place / "selected.toml", out=tmp_path, quiet=True)
        assert caught.value.exit_code == 3
        assert str(file) in str(caught.value)
        assert "truncated or damaged" in str(caught.value)
        assert "fetch or write the file again" in str(caught.value)
        assert not (tmp_path / "selected" / "corpus").exists()
        file.write_bytes(whole)
        run_recipe(place / "selected.toml", out=tmp_path, quiet=True)
        if not (place / "whole").exists():
            run_recipe(place / "selected.toml", out=place / "whole", quiet=True)
    finally:
        file.unlink()
    undisturbed = contents(place / "whole" / "selected" / "corpus")
    assert contents(tmp_path / "selected" / "corpus") == undisturbed


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst"])
def test_documents_that_unpack_without_end_are_refused(
    place: Path, tmp_path: Path, ending: str
) -> None:
    file = place / "texts" / f"train.{ending}"
    file.write_bytes(PACKED[ending](LINES + b"\n" * 2**24))
    try:
        with pytest.raises(DataError, match=r"compression bomb.*unpack it or split it") as caught:
            run_recipe(place / "selected.toml", out=tmp_path, quiet=True)
    finally:
        file.unlink()
    assert str(file) in str(caught.value)
    assert not (tmp_path / "selected" / "corpus").exists()
