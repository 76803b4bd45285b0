"""Whatever the documents are, nothing is lost or added: not by packing, by shards, or by a stop."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

import corpora
from attar.data.corpus.packing import Chunk, Packer, TokenizedDocument
from attar.data.corpus.sentence_ends import sentence_ends
from attar.data.corpus.token_store import Shard, ShardFiles, ShardWriter
from attar.data.corpus.tokenizing import DocumentTokenizer
from attar.data.documents import Document

ODD = [
    "",
    ".",
    ". . .\n\n",
    "no end " * 60,
    "🐟" * 20,
    "\ufeffbegins with a mark",
    "line\r\nline\r\n",
    "e\u0301" * 9,
    "\U0010ffff\u0000\x1b",
    corpora.END,
    f"before{corpora.END}after. And",
    "ﬁ ½ ﷺ",
    "  spaces  ",
]
TEXTS = st.lists(st.sampled_from(ODD + corpora.texts(4)) | st.text(max_size=40), max_size=6)
KINDS = ("byte-level", "words", "pieces", "byte fallback")
NARROW, WIDE = 320, 70_000


@cache
def tokenizer_of(kind: str) -> tuple[Tokenizer, int]:
    """Four ways to spell a text; only the first one spells its bytes."""
    if kind == "byte-level":
        with tempfile.TemporaryDirectory() as folder:
            made = corpora.write_tokenizer(Path(folder))
        return made, made.token_to_id(corpora.END)
    unknown, end = "?unk", "<end>"
    if kind == "words":
        words = sorted({word for text in corpora.texts(4) for word in text.lower().split()})
        made = Tokenizer(
            models.WordLevel({w: n for n, w in enumerate([end, unknown, *words])}, unknown)
        )
        made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.Whitespace()
    elif kind == "pieces":
        made = Tokenizer(models.WordPiece(unk_token=unknown))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=200, special_tokens=[end, unknown], show_progress=False
        )
        made.train_from_iterator(corpora.texts(20), trainer)
    else:
        made = Tokenizer(models.BPE(byte_fallback=True, unk_token=unknown))
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=[end, unknown, *fallback], show_progress=False
        )
        made.train_from_iterator(corpora.texts(20), trainer)
    return made, made.token_to_id(end)


def tokenized(kind: str, texts: Iterable[str]) -> list[TokenizedDocument]:
    documents = (
        (("scored", "reserved")[row % 3 == 2], Document(row, "ab"[row % 2], (text,)))
        for row, text in enumerate(texts)
    )
    return list(DocumentTokenizer(*tokenizer_of(kind)).tokenized(documents))


def packed(packer: Packer, documents: Iterable[TokenizedDocument]) -> Iterator[Chunk]:
    yield from packer.go_on()
    for document in documents:
        yield from packer.add(document)
    yield from packer.flush()


def whole(chunks: Iterable[tuple[tuple[str, ...], bool]]) -> list[str]:
    """The documents that pieces make."""
    texts, open_one = [], ""
    for pieces, ends in chunks:
        *ended, last = pieces
        for piece in ended:
            texts.append(open_one + piece)
            open_one = ""
        open_one += last
        if ends:
            texts.append(open_one)
            open_one = ""
    assert open_one == ""
    return texts


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@example(texts=["🐟" * 20, "", "🐟"], length=8, stop=3)
@example(texts=ODD, length=9, stop=7)
@given(texts=TEXTS, length=st.integers(8, 40), stop=st.integers(0, 40))
def test_a_source_is_its_documents_and_its_tokens(
    kind: str, texts: list[str], length: int, stop: int
) -> None:
    documents, ends = tokenized(kind, texts), sentence_ends(*tokenizer_of(kind))
    limit = length + 1
    chunks = list(packed(Packer(ends, limit), documents))
    for key in {document.key for document in documents}:
        of_key = [document for document in documents if document.key == key]
        mine = [chunk for chunk in chunks if (chunk.part, chunk.source) == key]
        stream = np.concatenate([document.ids for document in of_key])
        assert np.array_equal(np.concatenate([chunk.ids for chunk in mine]), stream)
        assert whole((c.pieces, c.ends_document) for c in mine) == [
            document.text.decode() for document in of_key
        ]
        assert all(0 < len(chunk.ids) <= limit for chunk in mine)
    packer, remaining = Packer(ends, limit), iter(documents)
    first = list(islice(packed(packer, remaining), stop))  # as between two shards
    again = [*first, *packed(Packer(ends, limit, packer.pending()), remaining)]
    assert [c.pieces for c in again] == [c.pieces for c in chunks]
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(again, chunks, strict=True))


@pytest.mark.parametrize("vocabulary", [NARROW, WIDE])
@settings(deadline=None, max_examples=20)
@given(texts=TEXTS.filter(bool), length=st.integers(8, 40))
def test_a_shard_gives_back_its_chunks(vocabulary: int, texts: list[str], length: int) -> None:
    kind = "byte-level"
    packer = Packer(sentence_ends(*tokenizer_of(kind)), length + 1)
    chunks = list(packed(packer, tokenized(kind, texts)))
    writer = ShardWriter(vocabulary)
    for chunk in chunks:
        writer.add(chunk, "ab".index(chunk.source))
    with tempfile.TemporaryDirectory() as folder:
        files = ShardFiles(Path(folder), 0)
        counts = writer.write(files)
        shard = Shard(files)
        assert counts == {"chunks": len(chunks), "tokens": len(shard.ids)}
        assert shard.ids.dtype.itemsize == (2 if vocabulary == NARROW else 4)
        rows = shard.texts().to_pylist()
        for number, (chunk, row) in enumerate(zip(chunks, rows, strict=True)):
            assert shard.chunk(number).tolist() == chunk.ids.tolist()
            assert (tuple(row["pieces"]), row["ends_document"]) == (
                chunk.pieces,
                chunk.ends_document,
            )
            assert "ab"[shard.source[number]] == chunk.source
            assert shard.document[number] == chunk.document


def test_a_document_of_thousands_of_chunks_is_whole() -> None:
    text = " ".join(corpora.texts(1200))
    (document,) = tokenized("byte-level", [text])
    chunks = list(packed(Packer(sentence_ends(*tokenizer_of("byte-level")), 9), [document]))
    assert len(chunks) > 5000
    assert whole((chunk.pieces, chunk.ends_document) for chunk in chunks) == [text]
