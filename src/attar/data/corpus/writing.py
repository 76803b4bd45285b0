"""Write the shards of a corpus from a stream of documents: tokenized in groups, packed by source.

Each shard is written together with the position in the stream: the next document, and the documents
that are not used up. A resumed run reads the stream again, tokenizes only the documents it still
needs, and continues with the next shard; the files are the same, byte for byte.

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
"""A shard stores source numbers in two bytes."""


@dataclass(frozen=True)
class Position:
    """Position in the stream of documents at the end of the last shard."""

    next_row: int = 0
    """First row that the packer has not read."""
    pending: tuple[tuple[tuple[int, ...], int], ...] = ()
    """For each buffer: its rows, and how many tokens of the first one are already in a chunk."""
    shards: tuple[Mapping[str, Any], ...] = ()
    """Counts of the finished shards."""
    sources: tuple[str, ...] = ()
    """Names of the sources, in the order of their numbers."""

    @classmethod
    def read(cls, folder: Path) -> Position:
        """The position saved by an interrupted run; the beginning if there is none."""
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
    """Write the shards that `folder` does not have yet.

    Args:
        documents: from a position, the pending documents and all later ones, each with its part.
        max_length: number of input tokens of a chunk; a chunk has one more, which is only
            predicted.
        shard_tokens: number of tokens after which a shard is written.
        say: called with a progress message after each shard.

    Returns:
        The contents of `corpus.json`, except the name of the data.

    Raises:
        DataError: too many sources.
        ResourceError: the disk is full; complete shards are kept.
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
    """Restore the buffers at a position; their documents are the first ones in the stream."""
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
