"""A corpus on disk: shards of chunks, written one after the other and read by memory map.

    corpus.json                 what the corpus is: tokenizer, limits, sources, counts of each shard
    00000.tokens.safetensors    ids, starts, source, part, document, digest of shard 0
    00000.texts.parquet         pieces and ends_document: the text of chunk i in row i

Row i of a shard is one chunk: its tokens are `ids[starts[i]:starts[i + 1]]`. Both files are of
common formats, so that any tool opens them. A shard is put in place when it is whole: a file under
its final name is complete, which is all that a resumed step must know.

Memory: one shard while writing; while reading, the pages that are touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import save

from attar.artifacts import read_json, write_bytes, write_json
from attar.data.corpus.packing import Chunk
from attar.errors import ArtifactError

CORPUS_FILE = "corpus.json"
FORMAT = 1
PARTS = ("scored", "reserved")
"""What a chunk is for, by its place here: to be scored and selected, or to train the reference."""
NUMPY = {"U16": "<u2", "U32": "<u4", "U64": "<u8", "I64": "<i8", "U8": "|u1"}
"""safetensors' names of types."""
BETWEEN_DOCUMENTS = "\n\n"
"""In the text of a chunk."""


@dataclass(frozen=True)
class ShardFiles:
    """The two files of a shard."""

    folder: Path
    number: int

    @property
    def tokens(self) -> Path:
        return self.folder / f"{self.number:05}.tokens.safetensors"

    @property
    def texts(self) -> Path:
        return self.folder / f"{self.number:05}.texts.parquet"


def chunk_digest(ids: NDArray[np.integer]) -> int:
    """64 bits that say which tokens a chunk has, whatever the width they are stored in."""
    plain = np.ascontiguousarray(ids, dtype="<u4").tobytes()
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "little")


def write_shard(
    files: ShardFiles,
    chunks: Sequence[Chunk],
    sources: Mapping[str, int],
    vocabulary: int,
) -> dict[str, int]:
    """Write a shard; its counts.

    Args:
        sources: name → its number in `corpus.json`.
        vocabulary: every id is below it.
    """
    narrow = np.dtype("<u2") if vocabulary <= 2**16 else np.dtype("<u4")
    lengths = [len(chunk.ids) for chunk in chunks]
    tensors = {
        "ids": np.concatenate([chunk.ids for chunk in chunks]).astype(narrow),
        "starts": np.concatenate([[0], np.cumsum(lengths)]).astype("<i8"),
        "source": np.array([sources[chunk.source] for chunk in chunks], "<u2"),
        "part": np.array([PARTS.index(chunk.part) for chunk in chunks], "|u1"),
        "document": np.array([chunk.document for chunk in chunks], "<u8"),
        "digest": np.array([chunk_digest(chunk.ids) for chunk in chunks], "<u8"),
    }
    texts = pa.table(
        {
            "pieces": pa.array([list(chunk.pieces) for chunk in chunks], pa.list_(pa.string())),
            "ends_document": pa.array([chunk.ends_document for chunk in chunks], pa.bool_()),
        }
    )
    packed = BytesIO()
    pq.write_table(texts, packed, compression="zstd")
    write_bytes(files.texts, packed.getvalue())
    write_bytes(files.tokens, save(tensors))
    return {"chunks": len(chunks), "tokens": int(sum(lengths))}


class Shard:
    """A shard as memory maps; arrays are read-only.

    Raises:
        ArtifactError: a file is missing, truncated, or not a shard of ours.
    """

    def __init__(self, files: ShardFiles) -> None:
        self.files = files
        self._tensors = _memory_maps(files.tokens)
        names = ("ids", "starts", "source", "part", "document", "digest")
        if missing := [name for name in names if name not in self._tensors]:
            raise ArtifactError(
                f"{files.tokens} is not a shard of a corpus: it has no {', '.join(missing)}; "
                "remove the step's folder and run it again"
            )
        self.ids, self.starts = self._tensors["ids"], self._tensors["starts"]
        self.source, self.part = self._tensors["source"], self._tensors["part"]
        self.document, self.digest = self._tensors["document"], self._tensors["digest"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each chunk, (N,)."""
        return np.diff(self.starts)

    def chunk(self, row: int) -> NDArray[np.int64]:
        """The ids of one chunk."""
        return np.asarray(self.ids[self.starts[row] : self.starts[row + 1]], np.int64)

    def texts(self) -> Any:
        """An Arrow table with the columns pieces and ends_document, a row a chunk; read whole."""
        try:
            return pq.read_table(self.files.texts)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self.files.texts, error) from error


@dataclass(frozen=True)
class Corpus:
    """A published corpus."""

    folder: Path
    about: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Raises:
        ArtifactError: the folder holds no corpus.
        """
        about = read_json(folder / CORPUS_FILE)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ArtifactError(
                f"{folder / CORPUS_FILE} is not of format {FORMAT}, the one this attar reads; run "
                "the tokenize step again"
            )
        return cls(folder, about)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        return tuple(
            Shard(ShardFiles(self.folder, number)) for number in range(len(self.about["shards"]))
        )

    def rows_of(self, part: str) -> NDArray[np.int64]:
        """Rows over all shards of the chunks of a part."""
        parts = np.concatenate([np.asarray(shard.part) for shard in self.shards])
        return np.flatnonzero(parts == PARTS.index(part))

    def texts(self, rows: NDArray[np.int64] | None = None) -> Iterator[str]:
        """The texts of some chunks, whose rows over all shards rise; None: of all."""
        begin = 0
        for shard in self.shards:
            end = begin + len(shard)
            inside = np.arange(begin, end) if rows is None else rows[(rows >= begin) & (rows < end)]
            pieces = shard.texts().column("pieces").take(pa.array(inside - begin))
            yield from (BETWEEN_DOCUMENTS.join(piece.as_py()) for piece in pieces)
            begin = end

    def counts(self) -> dict[str, Any]:
        """Chunks, tokens, and the chunks of each part and source."""
        sources: Sequence[str] = self.about["sources"]
        table = np.zeros((len(PARTS), len(sources)), np.int64)
        for shard in self.shards:
            np.add.at(table, (np.asarray(shard.part), np.asarray(shard.source)), 1)
        return {
            "chunks": int(table.sum()),
            "tokens": sum(shard["tokens"] for shard in self.about["shards"]),
            "shards": len(self.about["shards"]),
            "chunks_by_part": dict(zip(PARTS, table.sum(1).tolist(), strict=True)),
            "chunks_by_source": dict(zip(sources, table.sum(0).tolist(), strict=True)),
        }

    def write_about(self) -> None:
        write_json(self.folder / CORPUS_FILE, dict(self.about))


def _memory_maps(file: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, none of them read yet."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError(f"a header of {length} bytes in a file of {file.stat().st_size}")
            header: dict[str, Any] = json.loads(stream.read(length))
        return {
            name: _memory_map(file, 8 + length, about)
            for name, about in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from error


def _memory_map(file: Path, begin: int, about: Mapping[str, Any]) -> NDArray[Any]:
    dtype, shape = np.dtype(NUMPY[about["dtype"]]), tuple(about["shape"])
    first, last = about["data_offsets"]
    if last - first != dtype.itemsize * int(np.prod(shape)):
        raise ValueError(f"{last - first} bytes for a tensor of shape {shape}")
    if last == first:
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, "r", begin + first, shape)


def _damaged(file: Path, error: BaseException) -> ArtifactError:
    return ArtifactError(
        f"{file} cannot be read ({error}); remove the step's folder and run it again"
    )
