"""Row 11: a small file that unpacks to gigabytes is refused in bounded memory.

Each file is read by a process of its own, which says by how much its memory grew at most."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

MIB = 2**20
MAX_GROWTH_MIB = 120
"""A batch of 16 MiB some times over, and Python; each of the files asks for more than that."""
LONG = "a" * 500_000

READ_ALL = """
import resource, sys
from pathlib import Path
import attar.data.reading.records as records
from attar.errors import DataError
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, rows = peak(), 0
try:
    for row in records.read_records(Path(sys.argv[1])):
        rows += 1
except DataError as error:
    print(peak() - before, rows, error)
"""


def lines(pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Empty lines, a gigabyte of them in 64 equal frames."""
    return lambda file: file.write_bytes(pack(b"\n" * 16 * MIB) * 64) and None


def dictionary(*, store_schema: bool) -> Callable[[Path], None]:
    """One text of 500 kB that stands in 12,000 rows: 6 GB."""

    def write(file: Path) -> None:
        texts = pa.DictionaryArray.from_arrays(pa.array([0] * 12_000, pa.int32()), [LONG])
        pq.write_table(
            pa.table({"text": texts}), file, compression="zstd", store_schema=store_schema
        )

    return write


def many_dictionaries(file: Path) -> None:
    """Forty columns of such texts: what is decoded at once is the sum of them."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), [LONG])
    table = pa.table({f"text{i}": texts for i in range(40)})
    pq.write_table(table, file, compression="zstd", store_schema=False)


def runs(file: Path) -> None:
    """40 million rows of nothing."""
    pq.write_table(pa.table({"label": pa.nulls(40_000_000, pa.bool_())}), file, compression="zstd")


def lying_footer(file: Path) -> None:
    """192 MiB in one page, of which the footer says that it is 100 bytes."""
    texts = pa.array([b"\0" * MIB] * 192)
    pq.write_table(
        pa.table({"text": texts}),
        file,
        compression="zstd",
        use_dictionary=False,
        data_page_size=2**30,
        write_batch_size=1024,
        store_schema=False,
    )
    sizes = pq.read_metadata(file).row_group(0)
    raw = file.read_bytes()
    start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    footer = raw[start:]
    for size in (sizes.total_byte_size, sizes.column(0).total_uncompressed_size):
        true = varint(size)
        assert true in footer or size == sizes.total_byte_size
        footer = footer.replace(true, varint(100, len(true)))
    file.write_bytes(raw[:start] + footer)
    lied = pq.read_metadata(file).row_group(0)
    assert (lied.total_byte_size, lied.column(0).total_uncompressed_size) == (100, 100)


def varint(number: int, length: int = 1) -> bytes:
    """A number as thrift writes it, in at least so many bytes."""
    rest, found = number << 1, bytearray()
    while rest or len(found) < length:
        found.append(rest & 127 | 128)
        rest >>= 7
    found[-1] &= 127
    return bytes(found)


BOMBS: dict[str, Callable[[Path], None]] = {
    "lines.jsonl.gz": lines(gzip.compress),
    "lines.jsonl.zst": lines(zstandard.compress),
    "dictionary.parquet": dictionary(store_schema=True),
    "dictionary_of_plain_strings.parquet": dictionary(store_schema=False),
    "many_dictionaries.parquet": many_dictionaries,
    "runs.parquet": runs,
    "lying_footer.parquet": lying_footer,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    BOMBS[name](file)
    assert file.stat().st_size < MIB
    child = [sys.executable, "-P", "-c", READ_ALL, str(file)]
    words = subprocess.run(child, capture_output=True, text=True, check=True).stdout
    assert "compression bomb" in words
    assert "unpack it or split it" in words
    growth_mib, num_rows = words.split()[:2]
    assert float(growth_mib) < MAX_GROWTH_MIB
    assert int(num_rows) <= 256
