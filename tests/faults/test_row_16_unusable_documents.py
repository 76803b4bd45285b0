"""Row 16 for a corpus: a document that cannot be used is listed with its reason, and the corpus is
that of the others."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

import corpora
from attar.data.corpus.token_store import Corpus
from attar.errors import DataError

FAULTS = {
    "NUL byte in text": b'{"text": "a\\u0000b", "source": "sea"}',
    "longer than 512 KiB": b'{"text": "' + b"a b. " * 200_000 + b'", "source": "sea"}',
    "not UTF-8 (byte 0xe9, 'é' in Windows-1252)": b'{"text": "caf\xe9", "source": "sea"}',
    "half a character (a lone surrogate)": b'{"text": "\\ud83d a", "source": "sea"}',
    "not JSON": b'{"text": "a", "source": "sea"',
    "empty text": b'{"text": " \\n ", "source": "sea"}',
    "no text": b'{"body": "a", "source": "sea"}',
    "no source": b'{"text": "a"}',
    "text is not a text but a list": b'{"text": ["a"], "source": "sea"}',
    "NUL byte in source": b'{"text": "a", "source": "\\u0000"}',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unusable")
    corpora.write_tokenizer(folder / "model")
    corpora.write_documents(folder / "texts")
    return folder


def with_lines(folder: Path, name: str, train: bytes) -> Path:
    (folder / name).mkdir()
    (folder / name / "train.jsonl").write_bytes(train)
    validation = (folder / "texts" / "validation.jsonl").read_bytes()
    (folder / name / "validation.jsonl").write_bytes(validation)
    return folder / name


def test_unusable_documents_leave_the_corpus_of_the_others(folder: Path) -> None:
    good = (folder / "texts" / "train.jsonl").read_bytes().splitlines()
    lines = [*good[:7], *FAULTS.values(), *good[7:]]
    with_lines(folder, "mixed", b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    made, metrics = corpora.tokenized(folder, "of_mixed", path="mixed", max_set_aside=0.2)
    clean, _ = corpora.tokenized(folder, "of_good")
    assert metrics["documents"] == len(good)
    rejected = gzip.decompress((made.folder / "rejected.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(line) for line in rejected] == [
        {"row": 7 + number, "reason": reason} for number, reason in enumerate(FAULTS)
    ]
    mixed, others = Corpus.open(made.folder), Corpus.open(clean.folder)
    for one, other in zip(mixed.shards, others.shards, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.texts() == other.texts()


def test_too_many_unusable_documents_stop_the_step(folder: Path) -> None:
    good = (folder / "texts" / "train.jsonl").read_bytes().splitlines()
    with_lines(folder, "refused", b"\n".join([*good, *FAULTS.values()]))
    with pytest.raises(DataError) as caught:
        corpora.tokenized(folder, "none", path="refused")
    message = str(caught.value)
    assert f"10 of {len(good) + 10} rows cannot be used" in message
    assert all(f"1 × {reason}" in message for reason in FAULTS)
    enough = math.ceil(1000 / (len(good) + 10)) / 100
    assert f"raise the limit: --set data.texts.max_set_aside={enough} (" in message
    assert not list((folder / "none").iterdir())


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_documents_is_refused(folder: Path, content: bytes, tmp_path: Path) -> None:
    name = f"empty_{len(content)}"
    with_lines(folder, name, content)
    with pytest.raises(DataError, match="split 'train' of data 'texts' is empty") as caught:
        corpora.tokenized(folder, f"of_{name}", path=name)
    assert caught.value.exit_code == 3
    assert not list((folder / f"of_{name}").iterdir())
