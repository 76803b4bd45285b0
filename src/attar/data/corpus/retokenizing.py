"""A corpus or a selection for another tokenizer: its stored texts, packed into new chunks.

Chunks begin and end at the old tokenizer's token boundaries, so they are not retokenized one by one
(MiniPLM's scripts do so, and truncate those that become longer than a chunk). Instead, the
documents are reassembled from the pieces in the chunks and packed again. If a selection left out
some chunks of a document, each run of consecutive chunks is treated as a document.

Nothing is lost: the concatenated texts of the new chunks equal those of the old ones.

Memory: one shard, and the current document of each source.
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
"""Small shards, so that little work is repeated after an interruption."""
Key = tuple[int, int]
"""Numbers of part and source; documents with the same key are packed together."""


def retokenized(
    view: CorpusView,
    model_folder: Path,
    max_length: int,
    folder: Path,
    *,
    stop_if_asked: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda what: None,
) -> CorpusView:
    """Write the texts of a view to `folder`, as chunks of another tokenizer. A call after an
    interruption continues after the last complete shard.

    Args:
        model_folder: model whose tokenizer is used.
        max_length: number of input tokens of a chunk; a chunk has one more, which is only
            predicted.
        stop_if_asked: called before each document; may raise to stop.
        say: called with a progress message after each shard.

    Raises:
        ModelError: the tokenizer is missing or damaged, or has no end token.
        ArtifactError: a shard cannot be read.
        ResourceError: the disk is full; complete shards are kept.
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
    """Reassemble the documents in the chunks of a view, with their parts. They are numbered in the
    order in which they end."""
    sources: list[str] = view.corpus.about["sources"]
    numbers = count()
    open_pieces: dict[Key, list[str]] = {}

    def ended(key: Key, last: str = "") -> tuple[str, Document]:
        text = "".join([*open_pieces.pop(key, ()), last])
        return PARTS[key[0]], Document(next(numbers), sources[key[1]], (text,))

    for shard, rows in view.shards():
        for key, pieces, ends_document in _in_order(shard, rows):
            if pieces is None:  # chunk not selected: the text before it ends here
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
    """For every chunk of a shard: its key, its pieces (None if it is not among `rows`), and whether
    its last piece ends a document."""
    texts = shard.texts() if len(rows) else None
    is_in = np.zeros(len(shard), np.bool_)
    is_in[rows] = True
    for row, key in enumerate(zip(shard.part.tolist(), shard.source.tolist(), strict=True)):
        if texts is None or not is_in[row]:
            yield key, None, False
        else:
            yield key, texts["pieces"][row].as_py(), texts["ends_document"][row].as_py()
