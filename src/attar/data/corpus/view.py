"""A corpus, or some of its chunks, in corpus order: used for training, scoring, selection and
reading.

A view holds no tokens. It knows how many of its chunks each shard has; the rows themselves are
determined on demand: all, those of a part, or those that a selection kept.

Chunk i of a view is its i-th in corpus order; such numbers are called *places*. A *row* is a
chunk's number in the corpus, over all shards.

Memory: three numbers per shard. Tokens, and the rows of a selection, are memory maps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attar.artifacts import read_json
from attar.data.corpus.token_store import (
    BETWEEN_DOCUMENTS,
    PARTS,
    Corpus,
    Shard,
    memory_map,
)
from attar.data.tables import UNLABELLED, Split
from attar.errors import ArtifactError
from attar.numerics.selection import are_rows

ALL = "all"
KEPT_FILE = "kept.safetensors"
"""File of a selection: increasing rows (int64), and the scores of those rows."""
DIGEST_FILE = "kept.json"
"""File of a selection: number and hash of the kept chunks, to check that the corpus is
unchanged."""
REJECTED_FILE = "rejected.parquet"
"""File of a selection: row, scores and reason of the scored chunks that were not kept."""

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CorpusView:
    """Some chunks of a corpus."""

    corpus: Corpus
    part: str = ALL
    """Include only chunks of this part."""
    kept: NDArray[np.int64] | None = None
    """Include only these rows, in increasing order; None: every row of the part."""
    name: str = ""
    """Name of the selection, for messages; "": the whole corpus."""
    learns_prompts: bool = True
    """Whether training includes the prompt tokens in the loss."""

    @classmethod
    def of_selection(cls, corpus: Corpus, folder: Path) -> CorpusView:
        """The chunks that the select step with this folder kept.

        Raises:
            ArtifactError: the file is missing or damaged, or has rows of another corpus.
        """
        kept = kept_rows(folder)
        if not are_rows(kept, len(corpus)):
            raise ArtifactError(
                f"{folder / KEPT_FILE} has rows from {kept.min():,} to {kept.max():,}, expected "
                f"rising rows of the corpus {corpus.folder}, which has {len(corpus):,} chunks; it "
                "was changed, or selected from another corpus: run the select step again"
            )
        view = cls(corpus, kept=kept, name=folder.name)
        if read_json(folder / DIGEST_FILE) != view.digest():
            raise ArtifactError(
                f"{folder / KEPT_FILE} was made for another version of {corpus.folder}; name the "
                "corpus it was selected from, or run the select step again"
            )
        return view

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def label(self) -> str:
        """Name for messages."""
        return self.name or self.corpus.folder.name

    def shards(self) -> Iterator[tuple[Shard, NDArray[np.int64]]]:
        """Every shard, with the view's rows in it, numbered within the shard."""
        return map(self.shard, range(len(self.corpus.shards)))

    def shard(self, number: int) -> tuple[Shard, NDArray[np.int64]]:
        """One shard, with the view's rows in it, numbered within the shard."""
        shard = self.corpus.shards[number]
        return shard, self._inside(number, shard)

    def take(self, places: Places) -> CorpusView:
        """A view of some places, in increasing order."""
        return replace(self, part=ALL, kept=self.rows(places))

    def rows(self, places: Places) -> NDArray[np.int64]:
        found = np.zeros(len(places), np.int64)
        for number, members, inside in self._by_shard(places):
            found[members] = self._first_rows[number] + inside
        return found

    def lengths(self, places: Places) -> NDArray[np.int64]:
        """Number of tokens of each chunk."""
        found = np.zeros(len(places), np.int64)
        for number, members, inside in self._by_shard(places):
            starts = self.corpus.shards[number].starts
            found[members] = starts[inside + 1] - starts[inside]
        return found

    def column(self, name: str, places: Places) -> NDArray[Any]:
        """An array of the shards for some chunks: source, part, document, digest or prompt.

        Args:
            name: of the array.
        """
        found: NDArray[Any] | None = None
        for number, members, inside in self._by_shard(places):
            values = getattr(self.corpus.shards[number], name)[inside]
            found = np.zeros(len(places), values.dtype) if found is None else found
            found[members] = values
        return np.zeros(0, np.int64) if found is None else found

    def digests(self, places: Places) -> NDArray[np.uint64]:
        return self.column("digest", places)

    def digest(self) -> dict[str, Any]:
        """Number of chunks, and a hash of their digests."""
        found = hashlib.sha256()
        for shard, rows in self.shards():
            found.update(shard.digest[rows].tobytes())
        return {"chunks": len(self), "sha256": found.hexdigest()}

    def ids(self, places: Places) -> list[NDArray[np.int64]]:
        found: list[Any] = [None] * len(places)
        for number, members, inside in self._by_shard(places):
            shard = self.corpus.shards[number]
            for member, row in zip(members, inside, strict=True):
                found[member] = shard.chunk(int(row))
        return found

    def texts(self, places: Places) -> list[str]:
        """The text of each chunk, with a blank line between documents."""
        found = [""] * len(places)
        for number, members, inside in self._by_shard(places):
            read = texts_of(self.corpus.shards[number], inside)
            for member, text in zip(members, read, strict=True):
                found[member] = text
        return found

    def all_texts(self) -> Iterator[str]:
        """The text of every chunk, one shard in memory at a time."""
        for shard, rows in self.shards():
            if len(rows):
                yield from texts_of(shard, rows)

    @property
    def is_whole(self) -> bool:
        """Whether the view has every chunk of the corpus."""
        return self.kept is None and self.part == ALL

    @cached_property
    def tokens(self) -> int:
        """Total number of tokens."""
        if self.is_whole:
            return sum(shard["tokens"] for shard in self.corpus.about["shards"])
        return sum(int(shard.lengths[rows].sum()) for shard, rows in self.shards())

    def split(self) -> Split:
        """The chunks as rows of a data table, read on demand."""
        none = np.broadcast_to(np.int64(UNLABELLED), len(self))
        return Split(ChunkTexts(self), none, chunks=self)

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        """Row of each shard's first chunk, followed by the total number of rows, (S + 1,)."""
        counts = (shard["chunks"] for shard in self.corpus.about["shards"])
        return np.cumsum([0, *counts], dtype=np.int64)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Number of chunks of the view before each shard and in total, (S + 1,)."""
        if self.kept is not None:
            return np.searchsorted(self.kept, self._first_rows).astype(np.int64)
        if self.part == ALL:
            return self._first_rows
        counts = [int((shard.part == self._part).sum()) for shard in self.corpus.shards]
        return np.cumsum([0, *counts], dtype=np.int64)

    @property
    def _part(self) -> int:
        return PARTS.index(self.part)

    def _inside(self, number: int, shard: Shard | None = None) -> NDArray[np.int64]:
        """The view's rows in a shard. The shard is opened only if necessary."""
        if self.kept is not None:
            begin, end = self._ends[number : number + 2]
            return np.asarray(self.kept[begin:end], np.int64) - self._first_rows[number]
        if self.part == ALL:
            return np.arange(self.corpus.about["shards"][number]["chunks"])
        shard = self.corpus.shards[number] if shard is None else shard
        return np.flatnonzero(shard.part == self._part)

    def _by_shard(
        self, places: Places
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """For each shard with some of the places: its number, the indices into `places`, and the
        rows within the shard."""
        numbers = np.searchsorted(self._ends, places, side="right") - 1
        for number in np.unique(numbers).tolist():
            members = np.flatnonzero(numbers == number)
            yield number, members, self._inside(number)[places[members] - self._ends[number]]


@dataclass(frozen=True, eq=False)
class ChunkTexts(Sequence[tuple[str, ...]]):
    """The texts of a view as a sequence of rows of one text."""

    view: CorpusView

    def __len__(self) -> int:
        return len(self.view)

    @overload
    def __getitem__(self, place: int) -> tuple[str, ...]: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[tuple[str, ...], ...]: ...

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            places = np.arange(*place.indices(len(self)))
            return tuple((text,) for text in self.view.texts(places))
        (text,) = self.view.texts(np.array([range(len(self))[place]]))
        return (text,)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return ((text,) for text in self.view.all_texts())


def kept_rows(folder: Path) -> NDArray[np.int64]:
    """Rows of the corpus that a select step kept, in increasing order; a memory map."""
    return kept_columns(folder)["row"]


def kept_columns(folder: Path) -> dict[str, NDArray[Any]]:
    """Rows of the corpus that a select step kept, and their scores; memory maps.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    file = folder / KEPT_FILE
    columns = memory_map(file)
    rows = columns.get("row")
    if rows is None or any(
        column.shape != (rows.size,) or column.dtype != (np.int64 if name == "row" else np.float32)
        for name, column in columns.items()
    ):
        raise ArtifactError(
            f"{file} is not a selection: its columns must be row (int64) and scores (float32) of "
            f"one length, it has {', '.join(columns)}; remove the folder of step "
            f"{file.parent.name!r} and run it again"
        )
    return columns


def texts_of(shard: Shard, rows: NDArray[np.int64]) -> Iterator[str]:
    """The texts of some chunks; reads all texts of the shard."""
    pieces = shard.texts().column("pieces").take(pa.array(rows))
    return (BETWEEN_DOCUMENTS.join(piece.as_py()) for piece in pieces)
