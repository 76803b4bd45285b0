"""Documents in, the shards of a corpus out: tokenized in groups, packed by source, one at a time.

Each shard is written with the position it leaves the stream at: which document comes next, and
which ones are not used up. Whoever was killed reads the stream again, tokenizes only those, and
continues with the next shard; its files are the same, byte for byte.

Memory: one group of documents and one shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from attar.artifacts import read_json, write_json
from attar.data.corpus.packing import Chunk, Packer, Pending, TokenizedDocument
from attar.data.corpus.sentence_ends import sentence_ends
from attar.data.corpus.token_store import FORMAT, PARTS, ShardFiles, ShardWriter
from attar.data.corpus.tokenizing import DocumentTokenizer
from attar.data.documents import Document
from attar.errors import DataError
from attar.special_tokens import num_ids, tokenizer_digest

STATE_FILE = "state.json"
MAX_SOURCES = 2**16
"""Their numbers have two bytes in a shard."""


@dataclass(frozen=True)
class Position:
    """Where in the stream of documents the last shard ends."""

    next_row: int = 0
    """First row that the packer has not seen."""
    pending: tuple[tuple[tuple[int, ...], int], ...] = ()
    """Of each buffer: the rows in it, and how many tokens of the first one are in a chunk."""
    shards: tuple[Mapping[str, Any], ...] = ()
    """Counts of the shards that are written."""
    sources: tuple[str, ...] = ()
    """In the order of their numbers."""

    @classmethod
    def read(cls, folder: Path) -> Position:
        """That of a run that was stopped; the beginning if there is none."""
        if not (folder / STATE_FILE).exists():
            return cls()
        said = read_json(folder / STATE_FILE)
        pending = tuple((tuple(rows), begin) for rows, begin in said["pending"])
        return cls(said["next_row"], pending, tuple(said["shards"]), tuple(said["sources"]))


def write_shards(
    folder: Path,
    documents: Callable[[Position], Iterator[tuple[str, Document]]],
    tokenizer: Tokenizer,
    *,
    end_id: int,
    max_length: int,
    shard_tokens: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write the shards that `folder` does not have yet; what `corpus.json` says of all of them, but
    for the name of the data.

    Args:
        documents: with the part of each, those that are pending at a position and all after it.
        max_length: of a chunk, which has one token more, predicted last.
        shard_tokens: after which a shard is written.
        say: called after each shard.
    Raises:
        DataError: too many sources.
        ResourceError: the disk is full; whole shards are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    position = Position.read(folder)
    read = DocumentTokenizer(tokenizer, end_id).tokenized(documents(position))
    packer = Packer(sentence_ends(tokenizer, end_id), max_length + 1, _pending(position, read))
    vocabulary = num_ids(tokenizer)
    position = _written(folder, packer, read, position, vocabulary, shard_tokens, say)
    return {
        "format": FORMAT,
        "max_length": max_length,
        "end_id": end_id,
        "vocabulary": vocabulary,
        "tokenizer": tokenizer_digest(tokenizer),
        "parts": list(PARTS),
        "sources": list(position.sources),
        "shards": list(position.shards),
    }


def _pending(position: Position, read: Iterator[TokenizedDocument]) -> list[Pending]:
    """The buffers as they were at a position; their documents are the first ones in the stream."""
    count = sum(len(rows) for rows, _ in position.pending)
    by_row = {document.row: document for document in islice(read, count)}
    return [Pending(tuple(by_row[row] for row in rows), begin) for rows, begin in position.pending]


def _written(
    folder: Path,
    packer: Packer,
    read: Iterator[TokenizedDocument],
    position: Position,
    vocabulary: int,
    shard_tokens: int,
    say: Callable[[str], None],
) -> Position:
    shards = list(position.shards)
    numbers = {source: number for number, source in enumerate(position.sources)}
    next_row = position.next_row

    def number_of(source: str) -> int:
        number = numbers.setdefault(source, len(numbers))
        if number >= MAX_SOURCES:
            raise DataError(
                f"the documents have more than {MAX_SOURCES:,} sources; choose a source_column "
                "with fewer values"
            )
        return number

    def write(shard: ShardWriter) -> Position:
        shards.append(shard.write(ShardFiles(folder, len(shards))))
        pending = tuple(
            (tuple(document.row for document in each.documents), each.begin)
            for each in packer.pending()
        )
        reached = Position(next_row, pending, tuple(shards), tuple(numbers))
        write_json(folder / STATE_FILE, asdict(reached))
        return reached

    def chunks() -> Iterator[Chunk]:
        nonlocal next_row
        yield from packer.go_on()
        for document in read:
            next_row = document.row + 1
            yield from packer.add(document)
        yield from packer.flush()

    shard = ShardWriter(vocabulary)
    for chunk in chunks():
        shard.add(chunk, number_of(chunk.source))
        if shard.tokens >= shard_tokens:
            position, shard = write(shard), ShardWriter(vocabulary)
            tokens = sum(shard["tokens"] for shard in shards)
            say(f"{len(shards)} shards, {tokens:,} tokens")
    return write(shard) if len(shard) else position
