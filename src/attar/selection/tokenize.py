"""`run = "tokenize"`: make a corpus from a data table, as shards of token chunks with their texts.

Documents are streamed into shards in the scratch folder (`writing`); a killed run continues after
the last complete shard.

A corpus includes its tokenizer, so its folder can be used wherever a tokenizer can. A new tokenizer
(`learned_tokenizer`) is learned before the first shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from attar.artifacts import put_beside, read_json, write_json
from attar.data.config import FilesData
from attar.data.corpus.learned_tokenizer import (
    learn_tokenizer,
    require_size,
    sampled,
    write_learned,
)
from attar.data.corpus.token_store import PARTS, Corpus, ShardFiles
from attar.data.corpus.writing import Position, write_shards
from attar.data.documents import Document, documents
from attar.data.files import text_hash
from attar.data.packing import INPUTS, document_tokenizer
from attar.data.reading.locate import own_files
from attar.data.reading.rows import MAX_FAULTS, check_set_aside
from attar.data.tables import SetAside
from attar.errors import DataError
from attar.models.sources.references import resolve_model
from attar.selection.config import TokenizeMetrics, TokenizeStep
from attar.selection.fates import write_set_aside
from attar.special_tokens import TOKENIZER_FILE, write_tokenizer
from attar.step import StepContext
from attar.transformers_tokenizer import SETTINGS_FILE

REJECTED_FILE = "rejected.jsonl.gz"
MAX_FILES_SAID = 3
SCORED, RESERVED = PARTS
RESERVED_HASH, SHARE_HASH = "reserved", "share"
"""Salts of these hashes. The validation split is chosen by a hash of the text without a salt, so
the choices are independent."""


def tokenize(config: TokenizeStep, context: StepContext) -> TokenizeMetrics:
    """Write the shards and `corpus.json`.

    Returns:
        Counts by part and source.

    Raises:
        StoppedError: a stop was requested; complete shards are kept.
    """
    folder = _tokenizer_folder(config, context)
    tokenizer, end_id = document_tokenizer(folder)
    shards, stream = context.scratch / "shards", _Stream(config, context)
    written = write_shards(
        shards,
        stream.documents,
        tokenizer,
        end_id=end_id,
        max_length=config.max_length,
        shard_tokens=config.shard_tokens,
        say=lambda what: context.progress.say(f"  {context.name}: {what}"),
    )
    stream.finish()
    corpus = Corpus(context.folder, {"data": config.data, **written})
    for number in range(len(corpus.shards)):
        files = ShardFiles(shards, number)
        put_beside(files.tokens, context.folder)
        put_beside(files.texts, context.folder)
    corpus.write_about()
    write_set_aside(context.folder / REJECTED_FILE, stream.rejected)
    write_tokenizer(folder, context.folder, None, INPUTS)
    settings = read_json(context.folder / SETTINGS_FILE)
    end = tokenizer.id_to_token(end_id)  # only config.json may have defined it
    write_json(context.folder / SETTINGS_FILE, settings | {"eos_token": end})
    return cast(TokenizeMetrics, {"data": config.data, **stream.counts, **corpus.counts()})


def _tokenizer_folder(config: TokenizeStep, context: StepContext) -> Path:
    """Folder of the tokenizer, which is learned first if necessary."""
    wanted = config.tokenizer
    if isinstance(wanted, str):
        return resolve_model(wanted, context.inputs, context.recipe_folder)
    folder = context.scratch / "tokenizer"
    if (folder / TOKENIZER_FILE).exists():
        return folder
    table = context.data[wanted.train_on]

    def read() -> Iterator[Document]:
        for found in documents(table, context.recipe_folder, wanted.train_on):
            context.stop_if_asked("learning a tokenizer")
            if isinstance(found, Document):
                yield found

    context.progress.say(
        f"  {context.name}: training a tokenizer of {wanted.vocab_size:,} tokens from data "
        f"{wanted.train_on!r}"
    )
    tokenizer = learn_tokenizer(sampled(read, wanted.max_bytes), wanted)
    require_size(tokenizer, wanted, context.name)
    write_learned(tokenizer, folder)
    return folder


class _Stream:
    """The documents of a table with their parts, and the rejected rows."""

    def __init__(self, config: TokenizeStep, context: StepContext) -> None:
        self._config, self._context = config, context
        self._rows = 0
        self.rejected: list[SetAside] = []
        self.counts = {"documents": 0, "reserved_documents": 0, "bytes": 0}

    def documents(self, position: Position) -> Iterator[tuple[str, Document]]:
        """The documents pending at a position, and all later ones."""
        config, context = self._config, self._context
        pending = {row for rows, _ in position.pending for row in rows}
        table = context.data[config.data]
        for found in documents(table, context.recipe_folder, config.data, config.source_column):
            context.stop_if_asked("a shard")
            if self.counts["documents"] == config.max_documents:
                return
            self._rows += 1
            if isinstance(found, SetAside):
                self._reject(found)
                continue
            if not is_read(found.texts, config.share):
                continue
            part = part_of(found.texts, config.reserve)
            self.counts["documents"] += 1
            self.counts["reserved_documents"] += part == RESERVED
            self.counts["bytes"] += len(found.text.encode())
            if found.row >= position.next_row or found.row in pending:
                yield part, found

    def _reject(self, row: SetAside) -> None:
        self.rejected.append(row)
        if len(self.rejected) > MAX_FAULTS:
            raise DataError(
                f"data {self._config.data!r}: more than {MAX_FAULTS:,} rows cannot be used (the "
                f"last one: {row.reason}); look at the files"
            )

    def _files(self) -> str:
        """Names of the table's files, if it has any."""
        table = self._context.data[self._config.data]
        if not isinstance(table, FilesData):
            return ""
        names = [file.name for file in own_files(table, self._context.recipe_folder)["train"]]
        more = f" and {len(names) - MAX_FILES_SAID:,} more" if names[MAX_FILES_SAID:] else ""
        return f" ({', '.join(names[:MAX_FILES_SAID])}{more})"

    def finish(self) -> None:
        """Raise DataError if too many rows are unusable, or a part is empty."""
        config = self._config
        limit = self._context.data[config.data].max_set_aside
        check_set_aside(config.data, "train", self._rows, self.rejected, limit)
        if self.rejected:
            reasons = Counter(row.reason for row in self.rejected).most_common()
            said = ", ".join(f"{count:,} × {reason}" for reason, count in reasons)
            self._context.progress.say(
                f"  {self._context.name}: data {config.data!r}{self._files()}: set aside {said}"
            )
        documents, reserved = self.counts["documents"], self.counts["reserved_documents"]
        require_parts(config, documents, reserved, self._context.name)


def is_read(texts: tuple[str, ...], share: float) -> bool:
    """Whether a document is in the share that is read."""
    return share == 1 or _is_in(texts, SHARE_HASH, share)


def part_of(texts: tuple[str, ...], reserve: float) -> str:
    """The part of a document."""
    return RESERVED if _is_in(texts, RESERVED_HASH, reserve) else SCORED


def require_parts(config: TokenizeStep, documents: int, reserved: int, step: str) -> None:
    """Raise DataError if a corpus has no documents, or all of them in one of its two parts."""
    advice = "read more documents (max_documents, share), or change reserve"
    if documents == 0:
        raise DataError(
            f"{step}: none of the documents of data {config.data!r} is read; raise share "
            f"({config.share}), or add text"
        )
    if config.reserve > 0 and reserved == 0:
        raise DataError(
            f"{step}: reserve = {config.reserve} puts none of {documents} documents into the "
            f"reserved part; {advice}"
        )
    if reserved == documents:
        raise DataError(
            f"{step}: reserve = {config.reserve} puts all {documents} documents into the reserved "
            f"part, so nothing is left to score; {advice}"
        )


def _is_in(texts: tuple[str, ...], purpose: str, share: float) -> bool:
    return int(text_hash((purpose, *texts))[:16], 16) < share * 2**64
