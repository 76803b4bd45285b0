"""Whatever is in a data file, loading it gives rows or an `AttarError`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attar.data.config import FilesData
from attar.data.load import load_data
from attar.errors import AttarError

ROWS = [{"text": f"„Satz“ {i}", "label": "ab"[i % 2], "id": str(i)} for i in range(30)]
TABLE = "\n".join(["text,label,id", *(",".join(row.values()) for row in ROWS)]).encode()
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


WHOLE: dict[str, Callable[[], bytes]] = {
    "csv": lambda: TABLE,
    "tsv": lambda: TABLE.replace(b",", b"\t"),
    "txt": lambda: TABLE,
    "jsonl": lambda: JSONL,
    "jsonl.gz": lambda: gzip.compress(JSONL),
    "csv.zst": lambda: zstandard.compress(TABLE),
    "parquet": parquet,
}
PIECES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"\xff\xfe", b"\xfe\xff", b"\0\0", b'"', b"\r", b"\n\n", b"\\ud800", b"NaN"]),
)


@pytest.mark.parametrize("ending", WHOLE)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    places=st.lists(st.tuples(st.floats(0, 1), PIECES, st.booleans()), min_size=1, max_size=4),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
    limit=st.sampled_from([0.01, 1.0]),
)
def test_a_damaged_file_gives_rows_or_an_error_of_attar(
    tmp_path: Path, ending: str, places: list[tuple[float, bytes, bool]], kept: float, limit: float
) -> None:
    content = WHOLE[ending]()
    for share, piece, replaces in places:
        at = int(share * len(content))
        content = content[:at] + piece + content[at + len(piece) * replaces :]
    (tmp_path / f"train.{ending}").write_bytes(content[: round(kept * len(content))])
    try:
        data = load_data(FilesData(path=".", max_set_aside=limit), tmp_path)
    except AttarError as error:
        str(error).encode("utf-8")  # what a terminal is given
        return
    for split in data.splits.values():
        assert len(split.texts) == len(split.labels)
        for texts in split.texts:
            "".join(texts).encode("utf-8")
    for name in data.label_names:
        name.encode("utf-8")
