"""Documents → chunks: each source's tokens, concatenated and cut at sentence ends.

The problem: documents have any length, a model reads a limited number of tokens, and every chunk
must be traceable to its source. The idea: each source has its own buffer, to which a document's
tokens and an end token are appended. When a buffer holds more than a chunk, its front is cut off at
the last sentence end that fits (`sentence_ends`). At the end of the corpus, the remaining tokens in
the buffers become the last chunks.

Nothing is lost or added: concatenating the chunks of a source gives its token stream, and
concatenating their texts gives its documents. (MiniPLM's scripts drop what is left in the buffers,
and documents beyond 2,000 chunks.)

Memory: one chunk per source, and one document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attar.data.corpus.sentence_ends import SentenceEnds


@dataclass(frozen=True)
class TokenizedDocument:
    """A document as tokens, followed by the end token."""

    part: str
    """Part of the corpus; parts never share a chunk."""
    source: str
    row: int
    """Row number in the data."""
    text: bytes
    """UTF-8."""
    ids: NDArray[np.int32]
    """(T,), including the end token."""
    byte_ends: NDArray[np.int64]
    """(T,): bytes of the text up to and including each token; the last two are equal."""

    @property
    def key(self) -> tuple[str, str]:
        """Documents with the same key are packed together."""
        return self.part, self.source


@dataclass(frozen=True)
class Chunk:
    """Consecutive tokens of one source."""

    part: str
    source: str
    document: int
    """Row of the document that the first token belongs to."""
    ids: NDArray[np.int32]
    pieces: tuple[str, ...]
    """Text of each document, or part of a document, in the chunk."""
    ends_document: bool
    """Whether the last piece ends its document. All earlier pieces do."""
    prompt: int = 0
    """Number of leading tokens that were the prompt of a generated text; 0: not generated."""


@dataclass(frozen=True)
class Pending:
    """Documents of one source whose tokens are not all in chunks yet."""

    documents: tuple[TokenizedDocument, ...]
    begin: int
    """Number of tokens of the first document that are already in a chunk."""


@dataclass
class _Buffer:
    """Tokens of one source that are not in a chunk yet."""

    documents: list[TokenizedDocument] = field(default_factory=list[TokenizedDocument])
    begin: int = 0
    """Number of tokens of the first document that are already in chunks."""
    length: int = 0
    """Number of tokens in the buffer."""

    def add(self, document: TokenizedDocument) -> None:
        self.documents.append(document)
        self.length += len(document.ids)

    def front(self, tokens: int) -> NDArray[np.int32]:
        """The first tokens of the buffer, at most this many."""
        parts: list[NDArray[np.int32]] = []
        begin = self.begin
        for document in self.documents:
            parts.append(document.ids[begin : begin + tokens])
            tokens -= len(parts[-1])
            begin = 0
            if tokens == 0:
                break
        return np.concatenate(parts)

    def take(self, ids: NDArray[np.int32]) -> Chunk:
        """Remove the tokens `ids`, the first of the buffer, and return them as a chunk."""
        first, left = self.documents[0], len(ids)
        pieces: list[str] = []
        is_end = True
        while left:
            document = self.documents[0]
            end = min(self.begin + left, len(document.ids))
            pieces.append(_text_between(document, self.begin, end))
            left -= end - self.begin
            is_end = end == len(document.ids)
            self.begin = 0 if is_end else end
            if is_end:
                self.documents.pop(0)
        self.length -= len(ids)
        return Chunk(first.part, first.source, first.row, ids, tuple(pieces), is_end)


class Packer:
    """Packs documents one by one into chunks.

    Args:
        limit: maximum number of tokens in a chunk.
        pending: documents left over by an earlier packer, when resuming.
    """

    def __init__(self, ends: SentenceEnds, limit: int, pending: Sequence[Pending] = ()) -> None:
        self._ends, self._limit = ends, limit
        self._buffers = {
            each.documents[0].key: _Buffer(
                list(each.documents),
                each.begin,
                sum(len(document.ids) for document in each.documents) - each.begin,
            )
            for each in pending
        }

    def add(self, document: TokenizedDocument) -> Iterator[Chunk]:
        """Add a document; yield the chunks that are now full."""
        self._buffers.setdefault(document.key, _Buffer()).add(document)
        yield from self._full(document.key)

    def go_on(self) -> Iterator[Chunk]:
        """Yield the chunks that are already full, when resuming in the middle of a document."""
        for key in list(self._buffers):
            yield from self._full(key)

    def flush(self) -> Iterator[Chunk]:
        """Yield the remaining tokens of every source as chunks, in the order of the buffers' first
        documents.
        """
        for key in list(self._buffers):
            buffer = self._buffers[key]
            while buffer.length:
                yield self._next(buffer)

    def pending(self) -> tuple[Pending, ...]:
        """Documents whose tokens are not all in chunks yet."""
        return tuple(
            Pending(tuple(buffer.documents), buffer.begin)
            for buffer in self._buffers.values()
            if buffer.length
        )

    def _full(self, key: tuple[str, str]) -> Iterator[Chunk]:
        buffer = self._buffers[key]
        while buffer.length > self._limit:
            yield self._next(buffer)
        if not buffer.length:
            del self._buffers[key]  # so that the order of buffers depends only on their contents

    def _next(self, buffer: _Buffer) -> Chunk:
        ids = buffer.front(self._limit + 1)
        return buffer.take(ids[: self._ends.last(ids, self._limit)])


def _text_between(document: TokenizedDocument, begin: int, end: int) -> str:
    """The text of a range of tokens. A character whose bytes are split by a cut goes to the later
    part."""
    first = 0 if begin == 0 else int(document.byte_ends[begin - 1])
    last = int(document.byte_ends[end - 1])
    return document.text[_letter(document.text, first) : _letter(document.text, last)].decode()


def _letter(text: bytes, place: int) -> int:
    """Byte position where the character at `place` begins."""
    while 0 < place < len(text) and text[place] & 0xC0 == 0x80:  # a UTF-8 continuation byte
        place -= 1
    return place
