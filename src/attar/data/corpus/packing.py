"""Documents → chunks: each source's tokens, end to end, cut where sentences end.

The problem: documents are of any length, a model reads at most so many tokens, and whoever trains
later on a part of the chunks must know where every one came from. The idea: each source has a
buffer of its own. A document's tokens and the end token go to the end of it; whenever more than a
chunk has gathered, the front is cut off at the last sentence end that fits (`sentence_ends`). At
the end of the corpus, what the buffers still hold becomes the last chunks.

Nothing is lost and nothing is added: the chunks of a source end to end are its token stream, and
their texts end to end are its documents. (The scripts of MiniPLM drop what is left in the buffers,
and documents beyond 2,000 chunks.)

Memory: a chunk per source, and one document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attar.data.corpus.sentence_ends import SentenceEnds


@dataclass(frozen=True)
class TokenizedDocument:
    """A document as tokens, the end token after them."""

    part: str
    """What it is for; parts never share a chunk."""
    source: str
    row: int
    """Its place in the data."""
    text: bytes
    """UTF-8."""
    ids: NDArray[np.int32]
    """(T,), the end token included."""
    byte_ends: NDArray[np.int64]
    """(T,): bytes of the text up to and including each token; the last two are equal."""

    @property
    def key(self) -> tuple[str, str]:
        """What it is packed with."""
        return self.part, self.source


@dataclass(frozen=True)
class Chunk:
    """Consecutive tokens of one source."""

    part: str
    source: str
    document: int
    """Row of the document that its first token belongs to."""
    ids: NDArray[np.int32]
    pieces: tuple[str, ...]
    """The text of each document in it, or of the part of a document."""
    ends_document: bool
    """The last piece is the end of its document; all pieces before the last one are."""
    prompt: int = 0
    """The first so many tokens are a prompt that a model continued; 0: no model wrote it."""


@dataclass(frozen=True)
class Pending:
    """Documents of one source whose tokens are not yet a chunk."""

    documents: tuple[TokenizedDocument, ...]
    begin: int
    """Tokens of the first one that are in a chunk."""


@dataclass
class _Buffer:
    """Tokens of one source that are not yet a chunk."""

    documents: list[TokenizedDocument] = field(default_factory=list[TokenizedDocument])
    begin: int = 0
    """Tokens of the first document that went into chunks."""
    length: int = 0
    """Tokens in the buffer."""

    def add(self, document: TokenizedDocument) -> None:
        self.documents.append(document)
        self.length += len(document.ids)

    def front(self, tokens: int) -> NDArray[np.int32]:
        """The first tokens, at most so many."""
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
        """Remove the tokens `ids`, which are the first ones, as a chunk."""
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
    """Packs documents as they come.

    Args:
        limit: tokens of a chunk.
        pending: documents whose tokens are not yet a chunk, as a packer before this one left them.
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
        """The chunks that the document makes full."""
        self._buffers.setdefault(document.key, _Buffer()).add(document)
        yield from self._full(document.key)

    def go_on(self) -> Iterator[Chunk]:
        """The chunks that are full already, where a packer stopped in the middle of a document."""
        for key in list(self._buffers):
            yield from self._full(key)

    def flush(self) -> Iterator[Chunk]:
        """What is left of every source, in the order of the buffers' first documents."""
        for key in list(self._buffers):
            buffer = self._buffers[key]
            while buffer.length:
                yield self._next(buffer)

    def pending(self) -> tuple[Pending, ...]:
        """What is not a chunk yet."""
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
            del self._buffers[key]  # so that the order of buffers depends on what they hold alone

    def _next(self, buffer: _Buffer) -> Chunk:
        ids = buffer.front(self._limit + 1)
        return buffer.take(ids[: self._ends.last(ids, self._limit)])


def _text_between(document: TokenizedDocument, begin: int, end: int) -> str:
    """The text of some tokens. A letter whose bytes lie on both sides of a cut goes to the later
    one."""
    first = 0 if begin == 0 else int(document.byte_ends[begin - 1])
    last = int(document.byte_ends[end - 1])
    return document.text[_letter(document.text, first) : _letter(document.text, last)].decode()


def _letter(text: bytes, place: int) -> int:
    """The beginning of the letter that `place` lies in."""
    while 0 < place < len(text) and text[place] & 0xC0 == 0x80:  # inside a letter of UTF-8
        place -= 1
    return place
