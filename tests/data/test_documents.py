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
from attar.data.config import FilesData
from attar.data.corpus.token_store import Corpus
from attar.data.documents import Document, documents, without_answers
from attar.data.fingerprint import data_fingerprint
from attar.data.load import load_data
from attar.data.tables import SetAside
from attar.errors import DataError
from attar.planning import PlannedTexts
from attar.selection.rows import corpus_rows

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


def test_a_folder_of_text_files_is_a_document_each_and_bad_files_are_named(tmp_path: Path) -> None:
    files = {
        "law/a.txt": b"One text.\n\nOf two paragraphs.\n",
        "law/b.txt": b"caf\xe9",
        "sea/deep/c.txt": "\ufeffThe sea \U0001f41f".encode(),
        "sea/d.txt": b" \n",
        "sea/e.txt": b"NUL \0",
        "sea/f.txt": b"x" * 80_000,
        "notes.md": b"no text file",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    more = [f"Text {n}.\r\nIts second line." for n in range(20)]
    for number, text in enumerate(more):
        (tmp_path / f"sea/more{number:02}.txt").write_bytes(text.encode())
    config = FilesData(
        path=".", document="file", objective="causal_lm", max_set_aside=0.5, max_row_kib=64
    )
    found = list(documents(config, tmp_path, "texts", "source"))
    read = {d.text: d.source for d in found if isinstance(d, Document)}
    held_out = load_data(config, tmp_path).split("validation").texts
    whole = {
        "One text.\n\nOf two paragraphs.\n": "law",
        "The sea \U0001f41f": "deep",
        **{text.replace("\r", ""): "sea" for text in more},
    }
    assert read == {text: whole[text] for text in whole if (text,) not in held_out}
    assert len(held_out) == 2
    assert [s.reason for s in found if isinstance(s, SetAside)] == [
        "not UTF-8 (byte 0xe9, 'é' in Windows-1252): law/b.txt",
        *("empty: sea/d.txt", "NUL byte: sea/e.txt", "longer than 64 KiB: sea/f.txt"),
    ]
    before = data_fingerprint(config, tmp_path)
    (tmp_path / "law").rename(tmp_path / "laws")  # the source of its documents
    assert data_fingerprint(config, tmp_path) != before


def test_a_book_is_read_as_a_file_and_as_a_row_where_the_table_allows_it(tmp_path: Path) -> None:
    book = "It was a dark night. " * 30_000  # 615 KiB
    (tmp_path / "books").mkdir()
    for name in "abc":
        (tmp_path / f"books/{name}.txt").write_text(name + book)
    writers = {"jsonl": _jsonl, "parquet": _parquet, "csv": _csv}
    for ending, write in writers.items():
        (tmp_path / ending).mkdir()
        content = write([name + book for name in "abcdefgh"])
        (tmp_path / f"{ending}/train.{ending}").write_bytes(content)
    whole = FilesData(path="books", document="file", objective="causal_lm")
    assert {len(d.text) for d in documents(whole, tmp_path, "b") if isinstance(d, Document)} == {
        len(book) + 1
    }
    for ending in writers:
        table = FilesData(path=ending, text="text", objective="causal_lm", max_set_aside=1)
        with pytest.raises(DataError, match="8 of 8 rows") as raised:
            load_data(table, tmp_path)
        assert "longer than 512 KiB" in str(raised.value)
        assert "raise max_row_kib" in str(raised.value)
        wide = table.model_copy(update={"max_row_kib": 1024})
        assert len(load_data(wide, tmp_path).split("train").texts) == 7
        found = list(documents(wide, tmp_path, "b"))
        assert [type(d) for d in found] == [Document] * 7


def test_whole_files_have_no_split_of_their_own_and_the_setting_is_named_where_it_helps(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=r"every file is a row of train.*remove validation"):
        FilesData(path="a", document="file", validation="dev")
    (tmp_path / "one.txt").write_text("a")
    with pytest.raises(DataError, match=r'read each \.txt file as a document: document = "file"'):
        list(documents(FilesData(path=".", objective="causal_lm"), tmp_path, "texts"))


@pytest.mark.parametrize("form", ["jsonl", "txt"])
@pytest.mark.parametrize("is_split", [True, False])
def test_texts_without_labels_need_no_objective(folder: Path, form: str, is_split: bool) -> None:
    """Neither for a corpus and its plan nor for what its models are validated by."""
    name = f"{form}_{is_split}"
    (folder / name).mkdir()
    for split in ("train", "validation")[: 1 + is_split]:
        (folder / name / f"{split}.{form}").write_bytes(FORMATS[form][0](corpora.texts(40)))
    plain = FilesData(path=name, label_names=None)
    running = plain.model_copy(update={"objective": "causal_lm"})
    found, expected = (list(documents(each, folder, "texts")) for each in (plain, running))
    assert found == expected != []
    made, _ = corpora.tokenized(folder, f"{name}_corpus", path=name, settings=NO_SOURCE)
    for read in (
        corpus_rows(made, corpora.context(folder, "student", {"texts": plain})),
        PlannedTexts({"texts": plain}, folder, 0).loaded("texts", texts_only=True),
    ):
        judged = PlannedTexts({"texts": running}, folder, 0).loaded("texts").split("validation")
        assert list(read.split("validation").texts) == list(judged.texts) != []


def test_a_table_with_labels_is_read_as_it_is(folder: Path) -> None:
    (folder / "labelled").mkdir()
    (folder / "labelled" / "train.csv").write_text("premise,hypothesis,label\na sea,a boat,1\n")
    table = FilesData(path="labelled", label_names=None)
    assert without_answers(table, folder) is table
