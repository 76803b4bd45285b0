"""Documents → tokens, with the byte position where each token ends.

The problem: a chunk's text must be stored with its tokens, and a tokenizer that reports offsets is
slower than one that does not. The idea: a byte-level tokenizer spells every byte as one character
of its tokens, so the cumulative lengths of the token spellings are the offsets. They are used if
they sum to the document's size. If not (the text was normalized), that document is tokenized again
with offsets. Other kinds of tokenizers always report offsets.

The tokenizer's threads work on one group of documents while the previous group is packed.

Memory: two groups, each of one document or about a million characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.decoders import ByteLevel

from attar.data.corpus.packing import TokenizedDocument
from attar.data.documents import Document

CHARACTERS_AT_ONCE = 2**20
"""Size of a group of documents that is tokenized in parallel."""
Group = list[tuple[str, Document]]


class DocumentTokenizer:
    """A tokenizer that adds no special tokens except the end token after each document.

    Args:
        tokenizer: opened by `document_tokenizer`.
    """

    def __init__(self, tokenizer: Tokenizer, end_id: int) -> None:
        self._tokenizer, self._end_id = tokenizer, end_id
        vocabulary = tokenizer.get_vocab()
        self._spelled = np.zeros(max(vocabulary.values(), default=-1) + 1, np.int64)
        for token, token_id in vocabulary.items():
            self._spelled[token_id] = len(token)
        spells_bytes = isinstance(tokenizer.decoder, ByteLevel)
        self._encode = tokenizer.encode_batch_fast if spells_bytes else tokenizer.encode_batch
        self._reports_places = not spells_bytes

    def tokenized(self, documents: Iterable[tuple[str, Document]]) -> Iterator[TokenizedDocument]:
        """Tokenize (part, document) pairs, in order."""
        with ThreadPoolExecutor(1) as thread:
            before: tuple[Group, Future[list[Encoding]]] | None = None
            for group in _groups(documents):
                texts = [document.text for _, document in group]
                now = group, thread.submit(self._encode, texts, add_special_tokens=False)
                if before is not None:
                    yield from self._those(*before)
                before = now
            if before is not None:
                yield from self._those(*before)

    def _those(
        self, group: Group, encodings: Future[list[Encoding]]
    ) -> Iterator[TokenizedDocument]:
        for (part, document), encoding in zip(group, encodings.result(), strict=True):
            yield self._one(part, document, encoding)

    def _one(self, part: str, document: Document, encoding: Encoding) -> TokenizedDocument:
        text = document.text.encode()
        ids = np.array([*encoding.ids, self._end_id], np.int32)
        if self._reports_places:
            byte_ends = _reported(document.text, encoding)
        else:
            byte_ends = np.cumsum(self._spelled[ids])
            byte_ends[-1] = len(text)
            if len(ids) == 1 or byte_ends[-2] != len(text):
                again = self._tokenizer.encode(document.text, add_special_tokens=False)
                byte_ends = _reported(document.text, again)
        return TokenizedDocument(part, document.source, document.row, text, ids, byte_ends)


def _groups(documents: Iterable[tuple[str, Document]]) -> Iterator[Group]:
    group: Group = []
    size = 0
    for part, document in documents:
        group.append((part, document))
        size += len(document.text)
        if size >= CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _reported(text: str, encoding: Encoding) -> NDArray[np.int64]:
    """(T + 1,): byte position of each token's end and of the end token, from the tokenizer's
    offsets.

    A token ends where the next one begins, so that text covered by no token (a space) is included.
    """
    begins = [begin for begin, _ in encoding.offsets[1:]]
    letters = np.array([*begins, len(text), len(text)], np.int64)[-len(encoding.ids) - 1 :]
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    sizes = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])[np.maximum.accumulate(letters)]
