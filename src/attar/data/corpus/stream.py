"""The tokens of a corpus end to end, cut again every so many tokens: rows of one length.

The problem: a corpus is packed in chunks that end where sentences do, and span corruption needs
texts of exactly one length. The idea: the chunks of a source end to end are its tokens again, end
tokens of documents included, and can be cut anywhere. In each shard the chunks are taken source by
source and part by part, so that what was cut out of one document lies side by side; the shards
follow each other. Only where a shard ends may another source's text stand between two halves of a
document.

Nothing is lost: all rows end to end are all tokens, each once. Only the last row is shorter.
Memory: 16 bytes per chunk of the shards in use, of which `SHARDS_KNOWN` are remembered.
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
    """Texts as tokens, all of one length but the last."""

    @property
    def tokens(self) -> int:
        """Of all rows."""
        ...

    @property
    def largest_id(self) -> int:
        """No id is above it."""
        ...

    def __len__(self) -> int: ...

    def ids(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Ids]:
        """Token ids of some rows."""
        ...


@dataclass(frozen=True)
class BlockRows:
    """Rows that are in memory."""

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
    """The chunks of a view, cut again every `length` tokens."""

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
        """The tokens from `begin` to `end` of a shard, counted over the view's chunks in it."""
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
        """The view's chunks in a shard, source by source, and the tokens up to each one's end."""
        shard, chunks = self.view.shard(number)
        key = shard.part[chunks].astype(np.int64) * 2**16 + shard.source[chunks]
        chunks = chunks[np.argsort(key, kind="stable")]
        return chunks, np.cumsum(shard.lengths[chunks])

    @cached_property
    def _ends(self) -> Ids:
        """Tokens of the view before the end of each shard; a 0 in front, (S + 1,)."""
        if self.view.is_whole:
            counts = [shard["tokens"] for shard in self.view.corpus.about["shards"]]
        else:
            counts = [int(shard.lengths[rows].sum()) for shard, rows in self.view.shards()]
        return np.cumsum([0, *counts], dtype=np.int64)
