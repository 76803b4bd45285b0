"""A corpus on disk: shards of chunks, written one after the other and memory-mapped for reading.

    corpus.json                 what the corpus is: tokenizer, limits, sources, counts of each shard
    00000.tokens.safetensors    ids, starts, source, part, document and digest of shard 0; also
                                prompt, if a model generated its chunks
    00000.texts.parquet         pieces and ends_document: the text of chunk i in row i

Row i of a shard is one chunk: its tokens are `ids[starts[i]:starts[i + 1]]`. Both files use common
formats that other tools can open. A shard gets its final file name only when it is complete, so a
resumed step can tell which shards are done.

Memory while writing: the ids of one shard at their stored width, and its compressed texts; while
reading: the touched pages of the open shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, get_args, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.numpy import save

from attar.artifacts import read_json, write_bytes, write_json
from attar.data.corpus.config import CorpusForm, Part
from attar.data.corpus.packing import Chunk
from attar.errors import ArtifactError
from attar.untrusted import MAX_JSON_BYTES, checked, open_file, parse_json

CORPUS_FILE = "corpus.json"
FORMAT = 1
PARTS = get_args(Part)
"""A chunk stores the index of its part in this tuple."""
NUMPY = {
    **{"U8": "|u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"},
    **{"I32": "<i4", "I64": "<i8", "F32": "<f4"},
}
"""dtype names in safetensors → NumPy."""
ARRAYS = {"source": "<u2", "part": "|u1", "document": "<u8", "digest": "<u8"}
"""Arrays with one value per chunk, and their types."""
TYPES = {"ids": ("<u2", "<u4"), "starts": ("<i8",), **{name: (t,) for name, t in ARRAYS.items()}}
"""Array of a shard → allowed types."""
PROMPT, PROMPT_TYPE = "prompt", "<u4"
"""In shards written by a generate step: the number of prompt tokens of each chunk."""
MAX_IDS = 2**32
TEXTS = pa.schema([("pieces", pa.list_(pa.string())), ("ends_document", pa.bool_())])
PACKED: Mapping[str, Any] = {
    "compression": "zstd",
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}
CHUNKS_AT_ONCE = 1024
"""Number of chunks whose texts are compressed together, as a Parquet row group."""
BETWEEN_DOCUMENTS = "\n\n"
"""Separator of documents in the text of a chunk."""


@dataclass(frozen=True)
class ShardFiles:
    folder: Path
    number: int

    @property
    def tokens(self) -> Path:
        return self.folder / f"{self.number:05}.tokens.safetensors"

    @property
    def texts(self) -> Path:
        return self.folder / f"{self.number:05}.texts.parquet"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays in the file of tokens, as memory maps.

        Raises:
            ArtifactError: the file is missing, truncated, or not a shard of a corpus.
        """
        found = memory_map(self.tokens)
        wrong = [
            name
            for name, types in TYPES.items()
            if name not in found or found[name].ndim != 1 or found[name].dtype.str not in types
        ]
        prompt = found.get(PROMPT)
        if prompt is not None and (prompt.ndim != 1 or prompt.dtype.str != PROMPT_TYPE):
            wrong.append(PROMPT)
        if wrong:
            why = f"{', '.join(wrong)} missing or of another type"
            raise _not_a_shard(self.tokens, why)
        return found


def chunk_digest(ids: NDArray[np.integer]) -> int:
    """A 64-bit hash of a chunk's tokens, independent of their stored width."""
    plain = np.ascontiguousarray(ids, dtype="<u4").tobytes()
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "little")


class ShardWriter:
    """Collects the chunks of a shard, then writes it.

    Args:
        vocabulary: upper bound (exclusive) of the ids.
    """

    def __init__(self, vocabulary: int) -> None:
        self._narrow = np.dtype("<u2") if vocabulary <= 2**16 else np.dtype("<u4")
        self._ids: list[NDArray[Any]] = []
        self._rows: list[tuple[int, int, int, int]] = []
        self._prompts: list[int] = []
        self._texts: list[tuple[tuple[str, ...], bool]] = []
        self._packed = BytesIO()
        self._parquet = pq.ParquetWriter(self._packed, TEXTS, **PACKED)
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, chunk: Chunk, source: int) -> None:
        """Add a chunk.

        Args:
            source: index of its source in `corpus.json`.
        """
        self._ids.append(chunk.ids.astype(self._narrow))
        part, digest = PARTS.index(chunk.part), chunk_digest(chunk.ids)
        self._rows.append((source, part, chunk.document, digest))
        self._prompts.append(chunk.prompt)
        self._texts.append((chunk.pieces, chunk.ends_document))
        self.tokens += len(chunk.ids)
        if len(self._texts) == CHUNKS_AT_ONCE:
            self._pack_texts()

    def write(self, files: ShardFiles) -> dict[str, int]:
        """Write the shard.

        Returns:
            Its numbers of chunks and tokens.
        """
        source, part, document, digest = zip(*self._rows, strict=True)
        lengths = [len(ids) for ids in self._ids]
        self._pack_texts()
        self._parquet.close()
        write_bytes(files.texts, self._packed.getvalue())
        tensors = {
            "ids": np.concatenate(self._ids),
            "starts": np.concatenate([[0], np.cumsum(lengths)]).astype("<i8"),
            "source": np.array(source, ARRAYS["source"]),
            "part": np.array(part, ARRAYS["part"]),
            "document": np.array(document, ARRAYS["document"]),
            "digest": np.array(digest, ARRAYS["digest"]),
        }
        if any(self._prompts):
            tensors[PROMPT] = np.array(self._prompts, PROMPT_TYPE)
        write_bytes(files.tokens, save(tensors))
        return {"chunks": len(self), "tokens": self.tokens}

    def _pack_texts(self) -> None:
        if self._texts:
            pieces, ends = zip(*self._texts, strict=True)
            columns = [pa.array(map(list, pieces), TEXTS[0].type), pa.array(ends, TEXTS[1].type)]
            self._parquet.write_table(pa.Table.from_arrays(columns, schema=TEXTS))
            self._texts.clear()


class Shard:
    """A shard as read-only memory maps. The file stays open as long as this object exists.

    Args:
        vocabulary: upper bound (exclusive) of the ids.

    Raises:
        ArtifactError: a file is missing, truncated, or not a shard of a corpus.
    """

    def __init__(self, files: ShardFiles, vocabulary: int = MAX_IDS) -> None:
        self.files, self._vocabulary = files, vocabulary
        tensors = files.arrays()
        self.ids, self.starts = tensors["ids"], tensors["starts"]
        self.source, self.part = tensors["source"], tensors["part"]
        self.document, self.digest = tensors["document"], tensors["digest"]
        none = np.broadcast_to(np.array(0, PROMPT_TYPE), max(len(self.starts) - 1, 0))
        self.prompt: NDArray[np.uint32] = tensors.get(PROMPT, none)
        """Number of prompt tokens of each chunk."""
        if not self._is_whole():
            raise _not_a_shard(files.tokens, "its arrays have inconsistent lengths")

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each chunk, (N,)."""
        return np.diff(self.starts)

    def chunk(self, row: int) -> NDArray[np.int64]:
        """The ids of one chunk.

        Raises:
            ArtifactError: they do not match their digest.
        """
        ids = self.ids[self.starts[row] : self.starts[row + 1]]
        if chunk_digest(ids) != self.digest[row]:
            raise _damaged(
                self.files.tokens, f"the tokens of chunk {row} do not match their digest"
            )
        if ids.max() >= self._vocabulary:
            why = f"chunk {row} has id {ids.max()} of {self._vocabulary}"
            raise _damaged(self.files.tokens, why)
        return ids.astype(np.int64)

    def texts(self) -> Any:
        """Read all texts: an Arrow table with the columns pieces and ends_document, one row per
        chunk.
        """
        try:
            file = checked(self.files.texts)
            table = pq.read_table(file, schema=TEXTS, page_checksum_verification=True)
            table.validate(full=True)  # untrusted files may not be valid UTF-8
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self.files.texts, error) from error
        pieces = table.column("pieces")
        if pieces.null_count or any(part.values.null_count for part in pieces.chunks):
            raise _damaged(self.files.texts, "a text is missing")
        if len(table) != len(self):
            raise _damaged(self.files.texts, f"{len(table)} texts of {len(self)} chunks")
        return table

    def _is_whole(self) -> bool:
        starts, arrays = self.starts, [getattr(self, name) for name in ARRAYS]
        return bool(
            len(starts) > 0
            and starts[0] == 0
            and starts[-1] == len(self.ids)
            and (starts[1:] > starts[:-1]).all()  # compared, because a difference could overflow
            and all(len(array) == len(self) for array in arrays)
            and len(self.prompt) == len(self)
            and (self.prompt <= self.lengths).all()
            and self.part.max(initial=0) < len(PARTS)
        )


@dataclass(frozen=True)
class Shards(Sequence[Shard]):
    """The shards of a corpus, each opened on demand. None is kept open: the pages read from an open
    memory map count as memory of this process, and the number of open files is limited."""

    folder: Path
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.about["shards"])

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Shard]: ...
    def __getitem__(self, index: int | slice) -> Shard | Sequence[Shard]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        shard = Shard(ShardFiles(self.folder, number), self.about["vocabulary"])
        said, sources = self.about["shards"][number], len(self.about["sources"])
        highest = int(shard.source.max(initial=0))
        if said != {"chunks": len(shard), "tokens": len(shard.ids)} or highest >= sources:
            raise ArtifactError(
                f"{self.folder / CORPUS_FILE} says {said} of shard {number} and names {sources} "
                f"sources, {shard.files.tokens.name} has {len(shard)} chunks of {len(shard.ids)} "
                f"tokens and sources up to number {highest}; one of the files was changed: remove "
                "the step's folder and run it again"
            )
        return shard


@dataclass(frozen=True)
class Corpus:
    folder: Path
    about: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Open a corpus.

        Raises:
            ArtifactError: the folder contains no corpus.
        """
        file = folder / CORPUS_FILE
        about: Any = read_json(file)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ArtifactError(
                f"{file} is not of format {FORMAT}, the one this attar reads; run the tokenize "
                "step again"
            )
        try:
            CorpusForm.model_validate(about, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ArtifactError(
                f"{file} does not have the form of a corpus ({place}: {first['msg']}); remove the "
                f"folder of step {file.parent.name!r} and run it again"
            ) from error
        return cls(folder, about)

    @property
    def shards(self) -> Shards:
        return Shards(self.folder, self.about)

    def __len__(self) -> int:
        """Number of chunks in all shards."""
        return sum(shard["chunks"] for shard in self.about["shards"])

    def counts(self) -> dict[str, Any]:
        """Numbers of chunks and tokens, and of chunks per part and per source."""
        sources: Sequence[str] = self.about["sources"]
        table = np.zeros((len(PARTS), len(sources)), np.int64)
        for shard in self.shards:
            np.add.at(table, (shard.part, shard.source), 1)
        return {
            "chunks": int(table.sum()),
            "tokens": sum(shard["tokens"] for shard in self.about["shards"]),
            "shards": len(self.shards),
            "chunks_by_part": dict(zip(PARTS, table.sum(1).tolist(), strict=True)),
            "chunks_by_source": dict(zip(sources, table.sum(0).tolist(), strict=True)),
        }

    def write_about(self) -> None:
        write_json(self.folder / CORPUS_FILE, dict(self.about))


def memory_map(file: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file as memory maps; nothing is read yet.

    Raises:
        ArtifactError: the file is missing, truncated, not a safetensors file, or a link out of its
            folder.
    """
    try:
        with open_file(file) as stream:
            whole = np.asarray(np.memmap(stream, np.uint8, "r"))
        begin = 8 + int.from_bytes(whole[:8].tobytes(), "little")
        if begin > min(len(whole), MAX_JSON_BYTES):
            raise ValueError(f"a header up to byte {begin} in a file of {len(whole)}")
        header: dict[str, Any] = parse_json(whole[8:begin].tobytes(), file)
        return {
            name: _tensor(whole[begin:], about)
            for name, about in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from error


def _tensor(data: NDArray[np.uint8], about: Mapping[str, Any]) -> NDArray[Any]:
    first, last = about["data_offsets"]
    if not 0 <= first <= last <= len(data):
        raise ValueError(f"bytes {first} to {last} of {len(data)}")
    return data[first:last].view(NUMPY[about["dtype"]]).reshape(about["shape"])


def _not_a_shard(file: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{file} is not a shard of a corpus: {why}; remove the "
        f"folder of step {file.parent.name!r} and run it again"
    )


def _damaged(file: Path, why: object) -> ArtifactError:
    return ArtifactError(
        f"{file} cannot be read ({why}); remove the "
        f"folder of step {file.parent.name!r} and run it again"
    )
