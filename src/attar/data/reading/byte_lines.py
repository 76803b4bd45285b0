"""Lines of a plain, gzip or zstandard file as UTF-8: bounded in memory, and complete or refused.

The problem: an interrupted download looks like a shorter file (the zstandard library ends such a
stream silently), 32 KiB can unpack to a gigabyte, and a line without an end can fill memory. The
idea: Arrow's streams, which detect an incomplete compressed frame, read in small pieces under a
budget; a line over the limit is skipped while reading.

    refused:  unpacked > MAX_RATIO · packed   (once FREE_BYTES are exceeded)

A file may have any size; whoever keeps its rows in memory limits them (`rows.take_texts`).

Spreadsheets write UTF-16 with a byte-order mark, and old ones end lines with a carriage return:
both are unambiguous, so they are supported. UTF-16 without a mark is detected and refused.

Not detected: a compressed file cut exactly between two of its frames, at the end of a line. It is a
valid file with fewer rows, and only a stored checksum or count could reveal it; attar's artifacts
have one. If it is cut within a line, the last line has no line end, which the row readers check.
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
"""Unpacked bytes in memory at a time."""
LOOKED_AT = 8
"""Number of bytes used to detect the encoding."""
MAX_ROW_BYTES = 1024 * MAX_ROW_KIB
FREE_BYTES = 64 * MIB
"""The ratio is checked only above this size: small files may be highly repetitive."""
ROW_BYTES = 64
"""Added to the budget for every row: millions of empty rows take time and memory too."""
CODECS = {".gz": "gzip", ".zst": "zstd"}
MAX_RATIO = 200
"""Measured compression ratios: 2 to 9 for English data sets; for zeros 1,029 with gzip and 32,700
with zstandard."""


@dataclass(frozen=True)
class Unreadable:
    """A row that could not be read, and why."""

    reason: str


class Unended(bytes):
    """The last line of a file, if it has no line end."""


def too_long(limit: int) -> Unreadable:
    """The reason for setting aside a row longer than the limit."""
    return Unreadable(f"longer than {limit // 1024:,} KiB")


MARKS = {
    codecs.BOM_UTF8: "",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte-order mark → encoding ("": UTF-8); UTF-32's marks start with UTF-16's, so they are listed
first."""


def not_utf8(raw: bytes) -> Unreadable:
    """The first byte that is not UTF-8, and its character in Windows-1252, the most likely
    encoding.

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
    """Why a text cannot be encoded as UTF-8; None if it can."""
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
    """Compares the unpacked size of a file with its packed size, and refuses a compression bomb.

    Raises:
        DataError: the file does not exist.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise DataError(f"{file} does not exist; correct the path, or fetch the file again")
        self._file = file
        self._packed = file.stat().st_size
        self._unpacked = 0

    def spend(self, num_bytes: int) -> None:
        """Count unpacked bytes.

        Raises:
            DataError: the file unpacks to more than plausible for its size.
        """
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
    """Each line without its line end, as UTF-8. A line over the limit is returned as `too_long`, a
    last line without a line end as `Unended`. A byte-order mark is dropped.

    Raises:
        DataError: the file is missing, damaged, truncated, a compression bomb, or UTF-16 without a
            byte-order mark.
    """
    pending = bytearray()
    is_dropping = False
    num_lines = num_bytes = 0
    budget = Budget(file)
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
    import pyarrow as pa  # takes 0.1 s to import, which plain files do not need

    return pa.CompressedInputStream(raw, codec)


def _as_utf8(chunks: Iterator[bytes], file: Path) -> Iterator[bytes]:
    """Convert the bytes to UTF-8, according to the byte-order mark."""
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
    decoder.decode(b"", final=True)  # raises if the last character is incomplete


def _refuse_unmarked_utf16(head: bytes, file: Path) -> None:
    """Raise if every other one of the first bytes is NUL, as for Latin letters in UTF-16."""
    first = head[:LOOKED_AT]
    even, odd = first[::2], first[1::2]
    if len(first) < LOOKED_AT or not (any(even) != any(odd) and (all(even) or all(odd))):
        return
    raise DataError(
        f"{file} looks like UTF-16 without a byte-order mark; save it as UTF-8 (in a spreadsheet: "
        "CSV UTF-8)"
    )


def _ended_by_lf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Replace carriage returns by line feeds if the beginning of the file has no line feed, as in
    files from old Macintosh systems."""
    chunks = iter(chunks)
    head = b""
    for chunk in chunks:
        head += chunk
        if b"\n" in head or len(head) >= CHUNK_BYTES:
            break
    is_old = b"\r" in head and b"\n" not in head
    for chunk in chain([head], chunks):
        yield chunk.replace(b"\r", b"\n") if is_old else chunk
