"""Parquet: what is unpacked is charged before it is unpacked, and one odd column costs no row."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attar.data.reading.parquet import read_parquet
from attar.data.reading.parquet_pages import WIDEST_NUMBER, page_sizes
from attar.errors import DataError

COMPRESSIONS = ["none", "snappy", "gzip", "zstd"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("encoding", [None, "PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_page_headers_give_the_size_that_an_honest_footer_gives(
    tmp_path: Path, compression: str, version: str, encoding: str | None
) -> None:
    texts = [f"sentence {i} of {i * 7919 % 1000}" for i in range(3000)]
    pq.write_table(
        pa.table({"text": texts}),
        tmp_path / "t.parquet",
        compression=compression,
        data_page_version=version,
        use_dictionary=encoding is None,
        column_encoding=None if encoding is None else {"text": encoding},
        row_group_size=1000,
        data_page_size=4096,
    )
    metadata = pq.read_metadata(tmp_path / "t.parquet")
    declared = sum(metadata.row_group(i).total_byte_size for i in range(3))
    sizes = page_sizes(tmp_path / "t.parquet")
    assert 0.9 * declared <= sizes.unpacked <= declared  # a footer counts the headers too
    repeats = encoding in (None, "DELTA_BYTE_ARRAY")
    assert (sizes.largest_value > 0) == repeats
    rows = list(read_parquet(tmp_path / "t.parquet"))
    assert [row["text"] for row in rows if isinstance(row, dict)] == texts


def test_a_date_beyond_pythons_calendar_costs_nothing(tmp_path: Path) -> None:
    days = pa.array([0, 53_000_000, None], pa.int32()).cast(pa.date32())
    stamps = pa.array([0, 2**62, None], pa.timestamp("us", "Mars/Olympus"))
    table = pa.table({"text": ["a", "b", "c"], "day": days, "at": stamps})
    pq.write_table(table, tmp_path / "t.parquet")
    rows = [row for row in read_parquet(tmp_path / "t.parquet") if isinstance(row, dict)]
    assert [row["text"] for row in rows] == ["a", "b", "c"]
    assert [rows[0]["day"], rows[2]["day"]] == ["1970-01-01", None]


def test_columns_of_every_type_are_read_beside_a_text(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "list": pa.array([[1], [2]]),
        "struct": pa.array([{"a": 1}, {"a": 2}]),
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
        "time": pa.array([dt.time(1, 2), None]),
        "duration": pa.array([2**62, None], pa.duration("s")),
        "binary": pa.array([b"b", b"\xff"]),
        "number": pa.array([1.5, None]),
        "truth": pa.array([True, None]),
    }
    pq.write_table(pa.table({"text": ["a", "b"], **columns}), tmp_path / "t.parquet")
    found = list(read_parquet(tmp_path / "t.parquet"))
    assert isinstance(found[0], dict)
    assert found[0]["text"] == "a"
    assert (found[0]["binary"], found[0]["number"], found[0]["truth"]) == ("b", 1.5, True)
    assert (found[0]["list"], found[0]["struct"]) == ([], [])
    assert not isinstance(found[1], dict)
    assert found[1].reason == "not UTF-8 (byte 0xff, 'ÿ' in Windows-1252)"


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="two columns named 'text'"):
        list(read_parquet(tmp_path / "t.parquet"))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_longest_text_of_a_dictionary_is_the_largest_value(
    tmp_path: Path, compression: str
) -> None:
    """Not the whole dictionary, by which five rows would be read at a time."""
    file = tmp_path / "t.parquet"
    texts = [f"sentence {i}" for i in range(20_000)] + ["é" * 150]
    pq.write_table(
        pa.table({"text": texts * 2, "id": range(40_002)}), file, compression=compression
    )
    assert page_sizes(file).largest_value == 300 + WIDEST_NUMBER


def test_a_column_named_in_no_utf8_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a"]}), file, store_schema=False)
    file.write_bytes(file.read_bytes().replace(b"text", b"te\xfft"))
    with pytest.raises(DataError, match="truncated or damaged"):
        list(read_parquet(file))


DAMAGED_FOOTERS = """
import sys
from pathlib import Path
from attar.data.reading.parquet import read_parquet
from attar.errors import DataError
file = Path(sys.argv[1])
whole = file.read_bytes()
for at in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole)):
    for bit in (1, 2, 128):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            list(read_parquet(file))
        except DataError:
            pass
"""


def test_no_damage_of_the_footer_ends_the_process(tmp_path: Path) -> None:
    """As pyarrow's own view of column chunks does, by an exception that C++ does not catch."""
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), file, store_schema=False)
    done = subprocess.run([sys.executable, "-c", DAMAGED_FOOTERS, file], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_anywhere_is_an_error_of_the_data_or_gives_rows(
    tmp_path: Path, data: st.DataObject
) -> None:
    file = tmp_path / "t.parquet"
    table = pa.table({"text": ["a", "b"] * 40, "label": list(range(80)), "day": [1.5] * 80})
    pq.write_table(table, file, compression=data.draw(st.sampled_from(COMPRESSIONS)))
    raw = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(
        raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    )
    try:
        rows = list(read_parquet(file))
    except DataError:
        return
    assert len(rows) <= 80
