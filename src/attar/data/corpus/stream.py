"""The tokens of a corpus as one stream, cut into rows of a fixed length.

The problem: the chunks of a corpus end at sentence ends, and span corruption needs texts of exactly
one length. The idea: concatenating the chunks of a source restores its token stream, including end
tokens, which can be cut anywhere. Within a shard, chunks are ordered by part and source, so that
the chunks of a document are adjacent; shards follow each other. Only at a shard boundary can text
from another source come between two halves of a document.

Nothing is lost: the rows together contain all tokens, each once. Only the last row is shorter.

Memory: 16 bytes per chunk of the shards in use, of which `SHARDS_KNOWN` are cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attar.data.corpus.token_store import Shard
from attar.data.corpus.view import CorpusView
from attar.data.tokenize import Encoded

SHARDS_KNOWN = 64

Ids = NDArray[np.int64]


class Rows(Protocol):
    """Texts as token ids, all of one length except the last."""

    @property
    def tokens(self) -> int:
        """Total number of tokens in all rows."""
        ...

    @property
    def largest_id(self) -> int:
        """Upper bound of the ids."""
        ...

    def __len__(self) -> int: ...

    def ids(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Ids]:
        """Token ids of some rows."""
        ...


@dataclass(frozen=True)
class BlockRows:
    """Rows held in memory."""

    encoded: Encoded

    @property
    def tokens(self) -> int:
        return len(self.encoded.ids)

    @property
    def largest_id(self) -> int:
        return self.encoded.largest_id

    def __len__(self) -> int:
        return len(self.encoded)

    def ids(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Ids]:
        starts = self.encoded.starts
        return [self.encoded.ids[starts[r] : starts[r + 1]].astype(np.int64) for r in rows]


class StreamRows:
    """The chunks of a view as one stream, cut into rows of `length` tokens."""

    def __init__(self, view: CorpusView, length: int) -> None:
        self.view, self.length = view, length
        self._order_of = lru_cache(SHARDS_KNOWN)(self._order)

    @property
    def tokens(self) -> int:
        return self.view.tokens

    @property
    def largest_id(self) -> int:
        return int(self.view.corpus.about["vocabulary"]) - 1

    def __len__(self) -> int:
        return -(-self.tokens // self.length)

    def ids(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Ids]:
        opened: dict[int, Shard] = {}
        found: list[Ids] = []
        for row in rows:
            begin = int(row) * self.length
            pieces: list[Ids] = []
            while begin < min((int(row) + 1) * self.length, self.tokens):
                number = int(np.searchsorted(self._ends, begin, side="right")) - 1
                if number not in opened:
                    opened[number] = self.view.corpus.shards[number]
                end = min((int(row) + 1) * self.length, int(self._ends[number + 1]))
                first = int(self._ends[number])
                pieces += self._between(number, opened[number], begin - first, end - first)
                begin = end
            found.append(np.concatenate(pieces))
        return found

    def _between(self, number: int, shard: Shard, begin: int, end: int) -> list[Ids]:
        """The tokens from `begin` to `end` of a shard, counting only the view's chunks."""
        chunks, ends = self._order_of(number)
        place = int(np.searchsorted(ends, begin, side="right"))
        pieces: list[Ids] = []
        while begin < end:
            before = int(ends[place - 1]) if place else 0
            ids = shard.chunk(int(chunks[place]))[begin - before : end - before]
            pieces.append(ids.astype(np.int64))
            begin, place = begin + len(ids), place + 1
        return pieces

    def _order(self, number: int) -> tuple[Ids, Ids]:
        """The view's chunks in a shard ordered by part and source, and the cumulative number of
        tokens.
        """
        shard, chunks = self.view.shard(number)
        key = shard.part[chunks].astype(np.int64) * 2**16 + shard.source[chunks]
        chunks = chunks[np.argsort(key, kind="stable")]
        return chunks, np.cumsum(shard.lengths[chunks])

    @cached_property
    def _ends(self) -> Ids:
        """Number of tokens of the view before each shard and in total, (S + 1,)."""
        if self.view.is_whole:
            counts = [shard["tokens"] for shard in self.view.corpus.about["shards"]]
        else:
            counts = [int(shard.lengths[rows].sum()) for shard, rows in self.view.shards()]
        return np.cumsum([0, *counts], dtype=np.int64)
