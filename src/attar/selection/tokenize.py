"""`run = "tokenize"`: a data table in; a corpus out, as shards of token chunks with their texts.

Documents stream through: tokenized in groups, packed by source (`packing`), written shard by shard.
Each shard goes to the scratch folder with the position it leaves the stream at: which document
comes next, and which ones are not used up. A killed run reads the stream again, tokenizes only
those, and goes on with the next shard; its files are the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from attar.artifacts import (
    put_beside,
    read_json,
    write_json,
)
from attar.data.corpus.packing import Chunk, Packer, Pending, TokenizedDocument
from attar.data.corpus.sentence_ends import sentence_ends
from attar.data.corpus.token_store import FORMAT, PARTS, Corpus, ShardFiles, ShardWriter
from attar.data.corpus.tokenizing import DocumentTokenizer
from attar.data.documents import Document, documents
from attar.data.files import text_hash
from attar.data.packing import document_tokenizer
from attar.data.reading.rows import MAX_FAULTS, check_set_aside
from attar.data.tables import SetAside
from attar.errors import DataError
from attar.models.sources.references import resolve_model
from attar.selection.config import TokenizeStep
from attar.selection.set_aside import write_set_aside
from attar.special_tokens import tokenizer_digest
from attar.step import StepContext

STATE_FILE = "state.json"
REJECTED_FILE = "rejected.jsonl.gz"
SCORED, RESERVED = PARTS
MAX_SOURCES = 2**16
"""Their numbers have two bytes in a shard."""
SECOND_HASH = "reserved"
"""The validation split is chosen by a hash of the text alone; the reserved part by another one."""


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


def tokenize(config: TokenizeStep, context: StepContext) -> dict[str, Any]:
    """Write the shards and `corpus.json`; counts by part and source.

    Raises:
        AttarError: whatever a user can mend.
        StoppedError: asked to stop; whole shards are kept.
    """
    folder = resolve_model(config.tokenizer, context.inputs, context.recipe_folder)
    tokenizer, end_id = document_tokenizer(folder)
    shards = context.scratch / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    stream = _Stream(config, context)
    position = Position.read(shards)
    read = DocumentTokenizer(tokenizer, end_id).tokenized(stream.documents(position))
    packer = Packer(
        sentence_ends(tokenizer, end_id), config.max_length + 1, _pending(position, read)
    )
    vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
    position = _write_shards(config, context, packer, read, position, vocabulary)
    stream.finish()
    about = {
        "format": FORMAT,
        "data": config.data,
        "max_length": config.max_length,
        "end_id": end_id,
        "vocabulary": vocabulary,
        "tokenizer": tokenizer_digest(tokenizer),
        "parts": list(PARTS),
        "sources": list(position.sources),
        "shards": list(position.shards),
    }
    for number in range(len(position.shards)):
        files = ShardFiles(shards, number)
        put_beside(files.tokens, context.folder)
        put_beside(files.texts, context.folder)
    corpus = Corpus(context.folder, about)
    corpus.write_about()
    write_set_aside(context.folder / REJECTED_FILE, stream.rejected)
    return {"data": config.data, **stream.counts, **corpus.counts()}


class _Stream:
    """The documents of a table with the part each belongs to, and those that are rejected."""

    def __init__(self, config: TokenizeStep, context: StepContext) -> None:
        self._config, self._context = config, context
        self.rejected: list[SetAside] = []
        self.counts = {"documents": 0, "reserved_documents": 0, "bytes": 0}

    def documents(self, position: Position) -> Iterator[tuple[str, Document]]:
        """Those that are pending at a position, and all behind it."""
        config, context = self._config, self._context
        pending = {row for rows, _ in position.pending for row in rows}
        table = context.data[config.data]
        for found in documents(table, context.recipe_folder, config.data, config.source_column):
            context.stop_if_asked("a shard")
            if self.counts["documents"] == config.max_documents:
                return
            if isinstance(found, SetAside):
                self._reject(found)
                continue
            part = self._part_of(found)
            self.counts["documents"] += 1
            self.counts["reserved_documents"] += part == RESERVED
            self.counts["bytes"] += len(found.text.encode())
            if found.row >= position.next_row or found.row in pending:
                yield part, found

    def _part_of(self, document: Document) -> str:
        place = int(text_hash((SECOND_HASH, *document.texts))[:16], 16)
        return RESERVED if place < self._config.reserve * 2**64 else SCORED

    def _reject(self, row: SetAside) -> None:
        self.rejected.append(row)
        if len(self.rejected) > MAX_FAULTS:
            raise DataError(
                f"data {self._config.data!r}: more than {MAX_FAULTS:,} rows cannot be used (the "
                f"last one: {row.reason}); look at the files"
            )

    def finish(self) -> None:
        """Stop if too many rows could not be used.

        Raises:
            DataError: with the counts by reason.
        """
        config = self._config
        read = self.counts["documents"] + len(self.rejected)
        limit = self._context.data[config.data].max_set_aside
        check_set_aside(config.data, "train", read, self.rejected, limit)


def _pending(position: Position, read: Iterator[TokenizedDocument]) -> list[Pending]:
    """The buffers as they were at a position; their documents are the first ones in the stream."""
    count = sum(len(rows) for rows, _ in position.pending)
    by_row = {document.row: document for document in islice(read, count)}
    return [Pending(tuple(by_row[row] for row in rows), begin) for rows, begin in position.pending]


def _write_shards(
    config: TokenizeStep,
    context: StepContext,
    packer: Packer,
    read: Iterator[TokenizedDocument],
    position: Position,
    vocabulary: int,
) -> Position:
    folder = context.scratch / "shards"
    shards = list(position.shards)
    numbers = {source: number for number, source in enumerate(position.sources)}
    next_row = position.next_row

    def number_of(source: str) -> int:
        number = numbers.setdefault(source, len(numbers))
        if number >= MAX_SOURCES:
            raise DataError(
                f"{context.name}: source_column = {config.source_column!r} names more than "
                f"{MAX_SOURCES:,} sources; choose a column with fewer values"
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
        if shard.tokens >= config.shard_tokens:
            position, shard = write(shard), ShardWriter(vocabulary)
            context.progress.say(
                f"  {context.name}: {len(shards)} shards, "
                f"{sum(shard['tokens'] for shard in shards):,} tokens"
            )
    return write(shard) if len(shard) else position
