"""A corpus or a selection for another tokenizer: its stored texts, packed again into new chunks.

Chunks of the old tokenizer begin and end where its tokens do, so they are not retokenized one by
one (MiniPLM's scripts do, and cut what becomes longer than a chunk). The documents are put together
again from the pieces in the chunks, and packed as documents are. Of a document whose chunks are not
all there, because a selection left some out, each run of consecutive chunks is a document.

Nothing is lost: the texts of the new chunks end to end are those of the old ones.
Memory: one shard, and the open document of each source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np

from attar.data.corpus.token_store import CORPUS_FILE, PARTS, Corpus, Shard
from attar.data.corpus.view import CorpusView
from attar.data.corpus.writing import Position, write_shards
from attar.data.documents import Document
from attar.data.packing import document_tokenizer

SHARD_TOKENS = 2**22
"""Small shards, so that little is done again after a stop."""
Key = tuple[int, int]
"""Part and source, by number: what is packed together."""


def retokenized(
    view: CorpusView,
    model_folder: Path,
    max_length: int,
    folder: Path,
    *,
    stop_if_asked: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda what: None,
) -> CorpusView:
    """The texts of a view as chunks of another tokenizer, written to `folder`. Called again after a
    stop, it continues after the last whole shard.

    Args:
        model_folder: whose tokenizer reads.
        max_length: of a chunk, which has one token more, predicted last.
        stop_if_asked: called before each document; may raise to stop.
        say: called after each shard.
    Raises:
        ModelError: the tokenizer is missing or damaged, or has no end token.
        ArtifactError: a shard cannot be read.
        ResourceError: the disk is full; whole shards are kept.
    """
    if not (folder / CORPUS_FILE).exists():
        tokenizer, end_id = document_tokenizer(model_folder)

        def documents(position: Position) -> Iterator[tuple[str, Document]]:
            pending = {row for rows, _ in position.pending for row in rows}
            for part, document in stored_documents(view):
                stop_if_asked()
                if document.row >= position.next_row or document.row in pending:
                    yield part, document

        written = write_shards(
            folder,
            documents,
            tokenizer,
            end_id=end_id,
            max_length=max_length,
            shard_tokens=SHARD_TOKENS,
            say=say,
        )
        Corpus(folder, {"data": view.corpus.about["data"], **written}).write_about()
    return CorpusView(Corpus.open(folder), name=view.name or view.corpus.folder.name)


def stored_documents(view: CorpusView) -> Iterator[tuple[str, Document]]:
    """The documents in the chunks of a view, with their parts, numbered in the order in which they
    end."""
    sources: list[str] = view.corpus.about["sources"]
    numbers = count()
    open_pieces: dict[Key, list[str]] = {}

    def ended(key: Key, last: str = "") -> tuple[str, Document]:
        text = "".join([*open_pieces.pop(key, ()), last])
        return PARTS[key[0]], Document(next(numbers), sources[key[1]], (text,))

    for shard, rows in view.shards():
        for key, pieces, ends_document in _in_order(shard, rows):
            if pieces is None:  # left out: what was before it does not continue after it
                if key in open_pieces:
                    yield ended(key)
                continue
            for piece in pieces[:-1]:
                yield ended(key, piece)
            open_pieces.setdefault(key, []).append(pieces[-1])
            if ends_document:
                yield ended(key)
    for key in list(open_pieces):
        yield ended(key)


def _in_order(shard: Shard, rows: np.ndarray) -> Iterator[tuple[Key, list[str] | None, bool]]:
    """Of every chunk of a shard its key, its pieces (None: it is not among the rows), and whether
    the last one ends its document."""
    texts = shard.texts() if len(rows) else None
    is_in = np.zeros(len(shard), np.bool_)
    is_in[rows] = True
    for row, key in enumerate(zip(shard.part.tolist(), shard.source.tolist(), strict=True)):
        if texts is None or not is_in[row]:
            yield key, None, False
        else:
            yield key, texts["pieces"][row].as_py(), texts["ends_document"][row].as_py()
