"""Unpacked sizes of the pages of a Parquet file, determined without unpacking them.

The problem: nothing verifies the sizes in the footer, and Arrow unpacks whole pages: 31 kB can
become gigabytes before the first row is returned. The idea: each page is preceded by a header that
states its unpacked size (a codec that produces another size fails), so the headers are read page by
page. Only small dictionaries are unpacked: the length of their longest text determines how many
rows may be unpacked at a time.

    file = … column chunks … footer (thrift, compact protocol) + its length (4 bytes) + "PAR1"
    page = header (thrift, compact protocol) + compressed_page_size bytes
    dictionary page of texts = for each text its length (4 bytes, little endian) and its bytes

The positions of the chunks are parsed from the footer here too, because pyarrow ends the process
with an uncaught C++ exception if a damaged footer is accessed through its API.

Source: parquet-format, parquet.thrift (`FileMetaData`, `PageHeader`) and thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

MAX_FOOTER_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
"""Page headers contain at most a few values of statistics; no known writer comes near this
limit."""
MAX_DEPTH = 8
MAX_DICTIONARY_BYTES = 4 * 2**20
"""Writers limit a dictionary to about 1 MiB; a larger one is treated as one text of its full
size."""
MAX_ENTRIES = 5_000_000
"""Maximum number of dictionary entries inspected per file, about a second; other dictionaries count
as one text of their full size."""
WIDEST_NUMBER = 16
ROW_GROUPS, CHUNKS, CHUNK = 4, 1, 3
"""Field numbers in the footer, in a row group, and in a column chunk."""
TYPE, CODEC, PACKED, DATA_OFFSET, DICTIONARY_OFFSET = 1, 4, 7, 9, 11
"""Field numbers in a column chunk's metadata."""
TEXT, FIXED_TEXT = 6, 7
"""Value types that are bytes; all others are numbers."""
CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
DICTIONARY_PAGE, DATA_PAGE, DATA_PAGE_V2 = 2, 0, 3
DETAILS = {DICTIONARY_PAGE: (7, 1), DATA_PAGE: (5, 2), DATA_PAGE_V2: (8, 4)}
"""Kind of page → field number of its own header, and within it that of the number of entries or of
the encoding."""
DELTA_BYTE_ARRAY = 7
"""The encoding that stores a text as a shared prefix with the previous text, and the rest."""
BINARY, LIST, STRUCT = 8, 9, 12


class DamagedPageError(ValueError):
    """An invalid footer or page header."""


@dataclass(frozen=True)
class PageSizes:
    """Sizes of a file's pages, in bytes."""

    unpacked: int
    """Total of all pages."""
    largest_value: int
    """Upper bound of the unpacked size of one row, summed over the columns whose values are stored
    once and used many times."""


@dataclass(frozen=True)
class _Page:
    unpacked: int
    repeats: bool
    """Whether a value may be used by many rows."""
    entries: int
    """Number of entries of a dictionary; 0 for other pages."""
    begin: int
    packed: int
    """Number of bytes in the file, from `begin` on."""


def page_sizes(file: Path) -> PageSizes:
    """Sizes from the page headers of every column chunk.

    Raises:
        DamagedPageError: the footer or a header cannot be read, or points outside the file.
    """
    unpacked = 0
    repeated: dict[int, int] = {}
    entries_left = MAX_ENTRIES
    size = file.stat().st_size
    with file.open("rb") as stream:
        for column, chunk in _chunks(stream, size):
            start = start_of(chunk)
            end = start + chunk.get(PACKED, -1)
            if not 0 <= start <= end <= size:
                raise DamagedPageError(
                    f"column {column} stands at bytes {start} to {end} of {size}"
                )
            for page in _pages(stream, start, end):
                unpacked += page.unpacked
                if not page.repeats:
                    continue
                largest = page.unpacked
                if chunk.get(TYPE) not in (TEXT, FIXED_TEXT):
                    largest = WIDEST_NUMBER
                elif chunk.get(TYPE) == TEXT and 0 < page.entries <= entries_left:
                    entries_left -= page.entries
                    largest = _longest_text(stream, page, chunk) or page.unpacked
                repeated[column] = max(repeated.get(column, 0), largest)
    return PageSizes(unpacked, sum(repeated.values()))


def _chunks(stream: BinaryIO, size: int) -> Iterator[tuple[int, dict[int, int]]]:
    """For every column chunk: the column's number and the integer fields of its metadata."""
    stream.seek(max(size - 8, 0))
    length = int.from_bytes(stream.read(8)[:4], "little")
    if not 0 < length <= min(size - 8, MAX_FOOTER_BYTES):
        raise DamagedPageError(f"a footer of {length} bytes in a file of {size}")
    stream.seek(size - 8 - length)
    try:
        footer = _Compact(stream.read(length)).struct()
    except IndexError:
        raise DamagedPageError("the footer does not end") from None
    for group in _structs(_list(footer.get(ROW_GROUPS))):
        for column, chunk in enumerate(_structs(_list(group.get(CHUNKS)))):
            fields = _structs([chunk.get(CHUNK)])
            if not fields:
                raise DamagedPageError(f"column {column} has no metadata")
            yield column, {name: n for name, n in fields[0].items() if isinstance(n, int)}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _structs(values: list[Any]) -> list[dict[int, Any]]:
    """The structs in a list of values."""
    return [value for value in values if isinstance(value, dict)]


def start_of(chunk: dict[int, int]) -> int:
    """Position of the first page of a column chunk. Some writers set the dictionary offset to 0 if
    there is no dictionary.

    Example:
        >>> start_of({9: 400, 11: 4}), start_of({9: 400, 11: 0}), start_of({9: 400})
        (4, 400, 400)
    """
    offsets = (chunk.get(DICTIONARY_OFFSET), chunk.get(DATA_OFFSET))
    return min((offset for offset in offsets if offset), default=-1)


def _longest_text(stream: BinaryIO, page: _Page, chunk: dict[int, int]) -> int:
    """Length in bytes of the longest text in a dictionary; 0: not inspected, or damaged."""
    codec = CODECS.get(chunk.get(CODEC, -1), "")
    if codec == "" or max(page.unpacked, page.packed) > MAX_DICTIONARY_BYTES:
        return 0
    stream.seek(page.begin)
    content = stream.read(page.packed)
    if codec is not None:
        try:
            content = pa.Codec(codec).decompress(content, page.unpacked, asbytes=True)
        except (pa.ArrowException, OSError, ValueError):
            return 0
    at = longest = 0
    for _ in range(page.entries):
        length = int.from_bytes(content[at : at + 4], "little")
        longest = max(longest, length)
        at += 4 + length
    return longest if at == len(content) == page.unpacked else 0


def _pages(stream: BinaryIO, start: int, end: int) -> Iterator[_Page]:
    while start < end:
        header, length = _header(stream, start, end)
        kind, unpacked, packed = (_number(header.get(field)) for field in (1, 2, 3))
        if min(kind, unpacked, packed) < 0:
            raise DamagedPageError(f"no page at byte {start}")
        of_kind, field = DETAILS.get(kind, (0, 0))
        found = _number(next((d.get(field) for d in _structs([header.get(of_kind)])), None))
        is_dictionary = kind == DICTIONARY_PAGE
        repeats = is_dictionary or found == DELTA_BYTE_ARRAY
        yield _Page(unpacked, repeats, found if is_dictionary else 0, start + length, packed)
        start += length + packed


def _number(value: Any) -> int:
    """The value of an integer field; −1 if it is missing."""
    return value if isinstance(value, int) else -1


def _header(stream: BinaryIO, start: int, end: int) -> tuple[dict[int, Any], int]:
    wanted = 256
    while True:
        stream.seek(start)
        raw = stream.read(min(wanted, end - start))
        reader = _Compact(raw)
        try:
            return reader.struct(), reader.at
        except IndexError:
            if len(raw) < wanted or wanted >= MAX_HEADER_BYTES:
                raise DamagedPageError(f"the page header at byte {start} does not end") from None
            wanted *= 16


class _Compact:
    """A parser of thrift's compact protocol: structs become field → value, binaries are skipped."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Parse one struct.

        Raises:
            IndexError: the bytes end before the struct does.
        """
        if depth > MAX_DEPTH:
            raise DamagedPageError("structs nested too deep")
        found: dict[int, Any] = {}
        field = 0
        while (head := self._byte()) != 0:
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._zigzag()
            found[field] = self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._skip(8)
        if kind == BINARY:
            return self._skip(self._varint())
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind == LIST:
            return self._list(depth + 1)
        raise DamagedPageError(f"a field of kind {kind}")

    def _list(self, depth: int) -> list[Any]:
        if depth > MAX_DEPTH:
            raise DamagedPageError("lists nested too deep")
        head = self._byte()
        count, kind = head >> 4, head & 15
        count = self._varint() if count == 15 else count
        if count > len(self._raw) - self.at:  # each element takes at least one byte
            raise IndexError
        if kind in (1, 2):
            return [self._byte() == 1 for _ in range(count)]
        return [self._value(kind, depth) for _ in range(count)]

    def _byte(self) -> int:
        value = self._raw[self.at]
        self.at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise DamagedPageError("a number too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._raw):
            raise IndexError
