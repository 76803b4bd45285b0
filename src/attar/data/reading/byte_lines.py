"""Lines of a plain, gzip or zstandard file as UTF-8: bounded in memory, complete or refused.

The problem: a download that broke off reads like a shorter file (the zstandard library ends such a
stream silently), 32 KiB can unpack to a gigabyte, and one line without an end can fill
memory. The idea: Arrow's streams, which know when a compressed frame has not ended, read in small
pieces under a budget; a line over the cap is dropped as it passes.

    refused:  unpacked > MAX_RATIO · packed   (once FREE_BYTES are exceeded)

A file may be of any size: whoever holds its rows in memory sees to that (`rows.take_texts`).

Spreadsheets write UTF-16 with a byte-order mark, and old ones end a line with a carriage return:
both are unambiguous, so they are read. UTF-16 without a mark is recognized and refused.

Left out: a compressed file cut exactly between two of its frames, at the end of a line. It is a
valid file of fewer rows, and only a checksum or a count beside it could tell; artifacts of attar
have one. Cut inside a line, its last line has no end, which the readers of rows look at.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from attar.data.config import MAX_ROW_KIB
from attar.errors import DataError

MIB = 2**20
CHUNK_BYTES = MIB // 4
"""Unpacked bytes held at a time."""
LOOKED_AT = 8
"""Bytes by which an encoding is recognized."""
MAX_ROW_BYTES = 1024 * MAX_ROW_KIB
FREE_BYTES = 64 * MIB
"""Unpacked without a look at the ratio: small files may be as repetitive as they like."""
ROW_BYTES = 64
"""Charged for every row beside its content: millions of empty rows take time and memory too."""
CODECS = {".gz": "gzip", ".zst": "zstd"}
MAX_RATIO = 200
"""Measured: English data sets pack 2 to 9 times; zeros 1,029 times with gzip, 32,700 times with
zstandard."""


@dataclass(frozen=True)
class Unreadable:
    """A row that could not even be read, and why."""

    reason: str


class Unended(bytes):
    """The last line of a file that does not end with a line end."""


def too_long(limit: int) -> Unreadable:
    """Why a row of more bytes than the limit cannot be used."""
    return Unreadable(f"longer than {limit // 1024:,} KiB")


MARKS = {
    codecs.BOM_UTF8: "",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte-order mark → the encoding it stands for ("": UTF-8); UTF-32's begins with UTF-16's."""


def not_utf8(raw: bytes) -> Unreadable:
    """Which byte makes a row unreadable, and what it is in the usual encoding of Western Windows.

    Example:
        >>> not_utf8(b"caf\\xe9").reason
        "not UTF-8 (byte 0xe9, 'é' in Windows-1252)"
    """
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start : error.start + 1]
        meant = byte.decode("cp1252", errors="ignore")
        hint = f", {meant!r} in Windows-1252" if meant else ""
        return Unreadable(f"not UTF-8 (byte 0x{byte[0]:02x}{hint})")
    return Unreadable("not UTF-8")


def fault_of_encoding(text: str) -> Unreadable | None:
    """Why a text cannot be written as UTF-8; None if it can."""
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return not_utf8(text.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            return Unreadable("half a character (a lone surrogate)")
    return None


class Budget:
    """Counts unpacked bytes of a file against its packed ones, and refuses a compression bomb."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._packed = file.stat().st_size
        self._unpacked = 0

    def spend(self, num_bytes: int) -> None:
        """Raises: DataError: the file unpacks to more than any honest file of its size."""
        self._unpacked += num_bytes
        allowed = max(FREE_BYTES, MAX_RATIO * self._packed)
        if self._unpacked > allowed:
            raise DataError(
                f"{self._file} looks like a compression bomb: {self._packed / MIB:.2f} MiB "
                f"unpacked to more than {allowed / MIB:.0f} MiB (allowed: {MAX_RATIO} times its "
                f"size, at least {FREE_BYTES // MIB} MiB); if it is honest, unpack it or split it "
                "into several files"
            )


def read_lines(file: Path, limit: int = MAX_ROW_BYTES) -> Iterator[bytes | Unreadable]:
    """Each line without its end, as UTF-8; a line of more bytes than the limit comes as
    `too_long`, a last line without an end as `Unended`. A byte-order mark is dropped.

    Raises:
        DataError: the file is missing, damaged, truncated, a compression bomb, or UTF-16 that does
            not say so.
    """
    pending = bytearray()
    is_dropping = False
    num_lines = num_bytes = 0
    budget = Budget(file) if file.is_file() else None
    if budget is None:
        raise DataError(f"{file} does not exist; correct the path, or fetch the file again")
    try:
        for chunk in _ended_by_lf(_as_utf8(_chunks(file, budget), file)):
            *ended, rest = chunk.split(b"\n")
            for piece in ended:
                num_bytes += len(piece) + 1
                pending += piece
                is_over = is_dropping or len(pending) > limit
                yield too_long(limit) if is_over else bytes(pending)
                num_lines += 1
                pending.clear()
                is_dropping = False
            pending += rest
            if len(pending) > limit:
                is_dropping = True
                pending.clear()
    except PermissionError as error:
        raise DataError(f"{file} cannot be read: {error}; give yourself read permission") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} is truncated or damaged: {error}, after row {num_lines} (byte "
            f"{num_bytes} unpacked, file of {file.stat().st_size} bytes); fetch or write "
            "the file again; no row of it was used"
        ) from error
    if is_dropping or pending:
        yield too_long(limit) if is_dropping else Unended(pending)


def _chunks(file: Path, budget: Budget) -> Iterator[bytes]:
    with file.open("rb") as raw:
        stream = _unpacked(raw, CODECS[file.suffix]) if file.suffix in CODECS else raw
        while chunk := stream.read(CHUNK_BYTES):
            budget.spend(len(chunk) + ROW_BYTES * chunk.count(b"\n"))
            yield chunk


def _unpacked(raw: BinaryIO, codec: str) -> Any:
    import pyarrow as pa  # a tenth of a second that plain files do without

    return pa.CompressedInputStream(raw, codec)


def _as_utf8(chunks: Iterator[bytes], file: Path) -> Iterator[bytes]:
    """The bytes in UTF-8, by the byte-order mark at their beginning."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= LOOKED_AT:
            break
    mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
    encoding = MARKS.get(mark, "") or None
    if encoding is None:
        _refuse_unmarked_utf16(head, file)
        yield from chain([head.removeprefix(mark)], chunks)
        return
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    for chunk in chain([head.removeprefix(mark)], chunks):
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    decoder.decode(b"", final=True)  # half a character at the end: the file was cut


def _refuse_unmarked_utf16(head: bytes, file: Path) -> None:
    """Every other one of the first bytes is NUL: Latin letters in UTF-16."""
    first = head[:LOOKED_AT]
    even, odd = first[::2], first[1::2]
    if len(first) < LOOKED_AT or not (any(even) != any(odd) and (all(even) or all(odd))):
        return
    raise DataError(
        f"{file} looks like UTF-16 without a byte-order mark; save it as UTF-8 (in a spreadsheet: "
        "CSV UTF-8)"
    )


def _ended_by_lf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Carriage returns turned into line feeds, in a file whose beginning has no line feed: so an
    old Macintosh ended its lines."""
    chunks = iter(chunks)
    head = b""
    for chunk in chunks:
        head += chunk
        if b"\n" in head or len(head) >= CHUNK_BYTES:
            break
    is_old = b"\r" in head and b"\n" not in head
    for chunk in chain([head], chunks):
        yield chunk.replace(b"\r", b"\n") if is_old else chunk
