"""Chunks of a source end to end are its tokens and its texts; each ends where a sentence does."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import corpora
from attar.data.corpus.packing import Chunk, Packer, TokenizedDocument
from attar.data.corpus.sentence_ends import SentenceEnds, sentence_ends
from attar.data.corpus.tokenizing import DocumentTokenizer
from attar.data.documents import Document

LIMIT = 24
TEXTS = ["", *corpora.texts(40), "naïve" * 30, "no sentence end here " * 20]


def _word_level() -> Tokenizer:
    """A tokenizer that is not byte-level: it lowers its words and covers no spaces."""
    words = {word.strip(";.!?").lower() for text in TEXTS for word in text.split()} | set(";.!?")
    vocabulary = {word: number for number, word in enumerate(sorted(words | {"?unk", "<end>"}))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?unk"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture(scope="module", params=["byte-level", "words"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    if request.param == "words":
        tokenizer = _word_level()
        return tokenizer, tokenizer.token_to_id("<end>")
    tokenizer = corpora.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return tokenizer, tokenizer.token_to_id(corpora.END)


def _documents() -> list[tuple[str, Document]]:
    return [
        (("scored", "reserved")[row % 5 == 4], Document(row, "ab"[row % 2], (text,)))
        for row, text in enumerate(TEXTS)
    ]


def _tokenized(tokenizer: tuple[Tokenizer, int]) -> list[TokenizedDocument]:
    return list(DocumentTokenizer(*tokenizer).tokenized(_documents()))


def _packed(documents: list[TokenizedDocument], ends: SentenceEnds) -> list[Chunk]:
    packer = Packer(ends, LIMIT)
    chunks = [chunk for document in documents for chunk in packer.add(document)]
    return [*chunks, *packer.flush()]


def _whole_texts(chunks: list[Chunk]) -> list[str]:
    texts, current = [], ""
    for chunk in chunks:
        for place, piece in enumerate(chunk.pieces):
            current += piece
            if place < len(chunk.pieces) - 1 or chunk.ends_document:
                texts.append(current)
                current = ""
    assert current == ""
    return texts


def test_chunks_of_a_source_end_to_end_are_its_tokens(tokenizer: tuple[Tokenizer, int]) -> None:
    documents = _tokenized(tokenizer)
    chunks = _packed(documents, sentence_ends(*tokenizer))
    keys = {document.key for document in documents}
    assert len(keys) == 4
    for key in keys:
        stream = np.concatenate([each.ids for each in documents if each.key == key])
        mine = [chunk for chunk in chunks if (chunk.part, chunk.source) == key]
        assert np.array_equal(np.concatenate([chunk.ids for chunk in mine]), stream)


def test_texts_of_a_source_end_to_end_are_its_documents(tokenizer: tuple[Tokenizer, int]) -> None:
    documents = _tokenized(tokenizer)
    chunks = _packed(documents, sentence_ends(*tokenizer))
    for key in {document.key for document in documents}:
        mine = [chunk for chunk in chunks if (chunk.part, chunk.source) == key]
        assert _whole_texts(mine) == [
            document.text.decode() for document in documents if document.key == key
        ]


def test_tokens_are_those_of_the_tokenizer_with_an_end(tokenizer: tuple[Tokenizer, int]) -> None:
    for document in _tokenized(tokenizer):
        ids = tokenizer[0].encode(document.text.decode(), add_special_tokens=False).ids
        assert document.ids.tolist() == [*ids, tokenizer[1]]
        assert document.byte_ends[-1] == len(document.text)
        assert (np.diff(document.byte_ends) >= 0).all()


def test_a_chunk_ends_at_the_last_sentence_end_that_fits(tokenizer: tuple[Tokenizer, int]) -> None:
    ends = sentence_ends(*tokenizer)
    documents = _tokenized(tokenizer)
    for key in {document.key for document in documents}:
        stream = np.concatenate([each.ids for each in documents if each.key == key])
        begin = 0
        for chunk in _packed([each for each in documents if each.key == key], ends):
            end = begin + len(chunk.ids)
            assert 0 < len(chunk.ids) <= LIMIT
            if end < len(stream):
                following = np.append(stream, stream[-1])
                may_end = [
                    at
                    for at in range(begin + 1, min(begin + LIMIT, len(stream)) + 1)
                    if ends.always[stream[at - 1]]
                    or (ends.before_space[stream[at - 1]] and ends.begins_word[following[at]])
                ]
                assert end == max(may_end, default=begin + LIMIT)
            begin = end


def test_a_packer_goes_on_where_another_stopped(tokenizer: tuple[Tokenizer, int]) -> None:
    ends, documents = sentence_ends(*tokenizer), _tokenized(tokenizer)
    whole = _packed(documents, ends)
    for stop in range(0, len(whole), 7):
        first, reached = Packer(ends, LIMIT), 0
        chunks: list[Chunk] = []
        for reached, document in enumerate(documents):  # noqa: B007 - read behind the loop
            for chunk in first.add(document):
                chunks.append(chunk)
                if len(chunks) == stop:
                    break
            if len(chunks) == stop:
                break
        second = Packer(ends, LIMIT, first.pending())
        chunks += second.go_on()
        for document in documents[reached + 1 :]:
            chunks += second.add(document)
        chunks += second.flush()
        assert [chunk.pieces for chunk in chunks] == [chunk.pieces for chunk in whole]


@pytest.mark.parametrize(
    ("token", "always", "before_space"),
    [
        ("Ċ", True, False),
        (".", False, True),
        ("?)", False, False),
        ("x", False, False),
        ("(a)!", False, True),
    ],
)
def test_marks_of_a_sentence_end(token: str, always: bool, before_space: bool) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<end>": 0, token: 1, "Ġthen": 2}, unk_token="<end>"))
    ends = sentence_ends(tokenizer, 0)
    assert (bool(ends.always[1]), bool(ends.before_space[1])) == (always, before_space)
    assert ends.always[0]
    assert ends.begins_word.tolist() == [False, False, True]
