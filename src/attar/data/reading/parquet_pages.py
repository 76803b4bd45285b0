"""How large the pages of a Parquet file are once unpacked, known before any is.

The problem: the footer gives sizes that nothing checks, and Arrow unpacks a page whole: 31 kB can
become gigabytes before the first row is seen. The idea: a page's own header stands in front of it
and says the size that the page is unpacked into (a codec that yields another size fails), so the
headers are walked from page to page, without unpacking any but small dictionaries: how long their
longest text is says how many rows may be unpacked at a time.

    file = … column chunks … footer (thrift, compact protocol) + its length (4 bytes) + "PAR1"
    page = header (thrift, compact protocol) + compressed_page_size bytes
    dictionary page of texts = for each text its length (4 bytes, little endian) and its bytes

Where the chunks lie is read from the footer here too: of a damaged one, pyarrow's own view of the
chunks ends the process with an uncaught C++ exception.
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
"""Page headers hold statistics, at most a few values; this is far above what any writer writes."""
MAX_DEPTH = 8
MAX_DICTIONARY_BYTES = 4 * 2**20
"""Writers end a dictionary at about 1 MiB; a larger one is taken for a single text."""
MAX_ENTRIES = 5_000_000
"""Of all dictionaries of a file that are looked into, about a second; the others count whole."""
WIDEST_NUMBER = 16
ROW_GROUPS, CHUNKS, CHUNK = 4, 1, 3
"""Fields of the footer, of a row group, and of a column chunk."""
TYPE, CODEC, PACKED, DATA_OFFSET, DICTIONARY_OFFSET = 1, 4, 7, 9, 11
"""Fields of a column chunk's metadata."""
TEXT, FIXED_TEXT = 6, 7
"""Types of values that are bytes; all others are numbers."""
CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
DICTIONARY_PAGE, DATA_PAGE, DATA_PAGE_V2 = 2, 0, 3
DETAILS = {DICTIONARY_PAGE: (7, 1), DATA_PAGE: (5, 2), DATA_PAGE_V2: (8, 4)}
"""Kind of page → the field of its own header, and there that of the entries or of the encoding."""
DELTA_BYTE_ARRAY = 7
"""The encoding of a text as what it shares with the text before it, and the rest."""
BINARY, LIST, STRUCT = 8, 9, 12


class DamagedPageError(ValueError):
    """A footer or page header that is none."""


@dataclass(frozen=True)
class PageSizes:
    """Bytes of a file's pages."""

    unpacked: int
    """Of all pages."""
    largest_value: int
    """Upper limit of what one row can be unpacked to, over all columns whose values are stored once
    and used many times."""


@dataclass(frozen=True)
class _Page:
    unpacked: int
    repeats: bool
    """Its values may be used many times."""
    entries: int
    """Of a dictionary; 0 for another page."""
    begin: int
    packed: int
    """Its bytes in the file, from `begin` on."""


def page_sizes(file: Path) -> PageSizes:
    """Sizes by the page headers of every column chunk.

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
    """The column's number and the numbers in the metadata of every column chunk."""
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
    """Those of a list that are structs."""
    return [value for value in values if isinstance(value, dict)]


def start_of(chunk: dict[int, int]) -> int:
    """Where the pages of a column chunk begin; some writers say 0 for no dictionary.

    Example:
        >>> start_of({9: 400, 11: 4}), start_of({9: 400, 11: 0}), start_of({9: 400})
        (4, 400, 400)
    """
    offsets = (chunk.get(DICTIONARY_OFFSET), chunk.get(DATA_OFFSET))
    return min((offset for offset in offsets if offset), default=-1)


def _longest_text(stream: BinaryIO, page: _Page, chunk: dict[int, int]) -> int:
    """Bytes of the longest text of a dictionary; 0: it was not looked into, or is damaged."""
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
    """A field's number; −1 where there is none."""
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
    """A reader of thrift's compact protocol: structs as field → value, binaries passed over."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """One struct.

        Raises:
            IndexError: the bytes end before it.
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
        if count > len(self._raw) - self.at:  # each takes a byte at least
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
