"""How large the pages of a Parquet file are once unpacked, known before any is.

The problem: the footer gives sizes that nothing checks, and Arrow unpacks a page whole: 31 kB can
become gigabytes before the first row is seen. The idea: a page's own header stands in front of it
and says the size that the page is unpacked into (a codec that yields another size fails), so the
headers are walked from page to page, without unpacking any.

    page = header (thrift, compact protocol) + compressed_page_size bytes

Source: parquet-format, parquet.thrift (`PageHeader`) and thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 2**20
"""Page headers hold statistics, at most a few values; this is far above what any writer writes."""
MAX_DEPTH = 8
DICTIONARY_PAGE, DATA_PAGE, DATA_PAGE_V2 = 2, 0, 3
DELTA_BYTE_ARRAY = 7
"""The encoding of a text as what it shares with the text before it, and the rest."""
BINARY, LIST, SET, MAP, STRUCT = 8, 9, 10, 11, 12


class DamagedPageError(ValueError):
    """A page header that is none."""


@dataclass(frozen=True)
class PageSizes:
    """Bytes of a file's pages."""

    unpacked: int
    """Of all pages."""
    largest_value: int
    """Upper limit of what one row can be unpacked to, over all columns whose values are stored once
    and used many times."""


def page_sizes(file: Path, metadata: Any) -> PageSizes:
    """Sizes by the page headers of every column chunk.

    Raises:
        DamagedPageError: a header cannot be read, or points outside the file.
    """
    unpacked = 0
    repeated: dict[int, int] = {}
    size = file.stat().st_size
    with file.open("rb") as stream:
        for group in range(metadata.num_row_groups):
            for column in range(metadata.num_columns):
                chunk: Any = metadata.row_group(group).column(column)
                # some writers say 0 for no dictionary
                offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
                start = min(offset for offset in offsets if offset)
                end = start + chunk.total_compressed_size
                if not 0 <= start <= end <= size:
                    raise DamagedPageError(
                        f"column {column} stands at bytes {start} to {end} of {size}"
                    )
                for page in _pages(stream, start, end):
                    unpacked += page.unpacked
                    if page.repeats:
                        repeated[column] = max(repeated.get(column, 0), page.unpacked)
    return PageSizes(unpacked, sum(repeated.values()))


@dataclass(frozen=True)
class _Page:
    unpacked: int
    repeats: bool
    """Its values may be used many times."""


def _pages(stream: BinaryIO, start: int, end: int) -> Iterator[_Page]:
    while start < end:
        header, length = _header(stream, start, end)
        kind, unpacked, packed = header.get(1), header.get(2), header.get(3)
        if not (isinstance(unpacked, int) and isinstance(packed, int)) or min(unpacked, packed) < 0:
            raise DamagedPageError(f"no page at byte {start}")
        details = header.get({DATA_PAGE: 5, DATA_PAGE_V2: 8}.get(kind or 0, 5))
        encoding = details.get(4 if kind == DATA_PAGE_V2 else 2) if details else None
        yield _Page(unpacked, kind == DICTIONARY_PAGE or encoding == DELTA_BYTE_ARRAY)
        start += length + packed


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
    """A reader of thrift's compact protocol: structs as field → value, lists and binaries passed
    over."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """One struct.

        Raises:
            IndexError: the bytes end before it.
        """
        if depth > MAX_DEPTH:
            raise DamagedPageError("a page header nested too deep")
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
        raise DamagedPageError(f"a page header with a field of kind {kind}")

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
                raise DamagedPageError("a page header with a number too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._raw):
            raise IndexError
