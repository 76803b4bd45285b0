"""Row 8: a data file that broke off is named, with how far it could be read and what to do."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from attar.data.config import FilesData, GlueData
from attar.data.load import load_data
from attar.data.reading.byte_lines import read_lines
from attar.errors import DataError

ROWS = [{"text": f"sentence {i} of {i * 7919 % 1000}", "label": i % 2} for i in range(2000)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet(_: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "jsonl.gz": gzip.compress,
    "jsonl.zst": zstandard.compress,
    "parquet": parquet,
}


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("share", [0.001, 0.4, 0.999])
def test_a_truncated_file_is_refused_by_name_and_place(
    tmp_path: Path, ending: str, share: float
) -> None:
    file = tmp_path / f"train.{ending}"
    whole = PACKED[ending](LINES)
    file.write_bytes(whole)
    assert len(load_data(FilesData(path="."), tmp_path).split("train")) == 1800
    file.write_bytes(whole[: int(len(whole) * share) or 1])
    with pytest.raises(
        DataError, match=rf"{re.escape(str(file))} is truncated or damaged.*after row \d+.*fetch"
    ):
        load_data(FilesData(path="."), tmp_path)


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_no_cut_of_a_stream_goes_unseen(tmp_path: Path, ending: str) -> None:
    """Every single length of the file, except that of nothing at all (it is an empty file)."""
    whole = PACKED[f"jsonl.{ending}"](LINES[:6000])
    file = tmp_path / f"train.jsonl.{ending}"
    for length in range(1, len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match="truncated or damaged"):
            list(read_lines(file))


def test_the_zstandard_library_alone_would_not_see_the_cut() -> None:
    """Why the streams are Arrow's: if this fails one day, the library has learnt it too."""
    whole = zstandard.compress(LINES)
    with zstandard.ZstdDecompressor().stream_reader(whole[: len(whole) // 2]) as stream:
        assert len(stream.read()) < len(LINES)


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(LINES))
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "train.jsonl.gz").write_bytes(whole)
    with pytest.raises(DataError, match=r"train\.jsonl\.gz is truncated or damaged"):
        load_data(FilesData(path="."), tmp_path)


def test_a_truncated_glue_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "train.jsonl.gz").write_bytes(gzip.compress(LINES)[:-9])
    with pytest.raises(DataError, match=r"sst2/train\.jsonl\.gz is truncated or damaged"):
        load_data(GlueData(task="sst2", path="."), tmp_path)


def test_a_wrong_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(LINES)
    with pytest.raises(DataError, match="truncated or damaged"):
        load_data(FilesData(path="."), tmp_path)
