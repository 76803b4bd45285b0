"""One row is one record in every format."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attar.data.reading import byte_lines
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.records import read_records
from attar.errors import DataError

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8))
def test_all_formats_of_one_table_give_the_same_records(
    tmp_path: Path, rows: list[tuple[str, str]]
) -> None:
    records = [{"text": text, "label": label} for text, label in rows]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress((tmp_path / "t.jsonl").read_bytes()))
    for name, delimiter in (("t.csv", ","), ("t.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, ["text", "label"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    for name in ("t.jsonl", "t.jsonl.gz", "t.csv", "t.tsv", "t.parquet"):
        assert list(read_records(tmp_path / name)) == records, name


def test_a_quoted_field_of_csv_may_hold_lines_and_commas(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b'text,label\r\n"two\nlines, ""quoted""",1\r\nplain,0\r\n')
    assert list(read_records(file)) == [
        {"text": 'two\nlines, "quoted"', "label": "1"},
        {"text": "plain", "label": "0"},
    ]


def test_a_stray_quotation_mark_swallows_no_rows_of_tsv(tmp_path: Path) -> None:
    file = tmp_path / "t.tsv"
    texts = ['"open', 'closed" here', 'an "inch"', '"a" and "b"', "next"]
    file.write_text("text\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    assert [row["text"] for row in read_records(file) if isinstance(row, dict)] == texts
    file.write_text("label\ttext\n" + "".join(f"1\t{text}\n" for text in texts))
    assert [row["text"] for row in read_records(file) if isinstance(row, dict)] == texts


def test_quotation_marks_of_two_cells_do_not_join_them(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('a\tb\tlabel\n"Yes\tno"\t1\n')
    assert list(read_records(tmp_path / "t.tsv")) == [{"a": '"Yes', "b": 'no"', "label": "1"}]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("columns", [["text", "label"], ["label", "text"]])
def test_quotations_of_tsv_are_undone_as_pandas_writes_them(
    tmp_path: Path, columns: list[str], ends: str
) -> None:
    pandas = pytest.importorskip("pandas")
    texts = ["a\ttab", 'a "quote"', '"all"', 'two\nlines\n\n"three"', "plain", " ", '"open']
    table = pandas.DataFrame({"text": texts, "label": list("ababaab")})[columns]
    table.to_csv(tmp_path / "t.tsv", sep="\t", index=False, lineterminator=ends)
    found = list(read_records(tmp_path / "t.tsv"))
    assert found == table.to_dict("records")


def test_a_cell_that_lacks_its_end_costs_its_line_only(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('text\tlabel\n"open\nnext\t0\nlast\t1\n')
    fault, *others = read_records(tmp_path / "t.tsv")
    assert fault == Unreadable("wrong number of columns")
    assert others == [{"text": "next", "label": "0"}, {"text": "last", "label": "1"}]


SWALLOWING = {
    "closed by a later quotation": b'"open,1\nb,0\nhe said "hi",0\n',
    "never closed": b'b,0\nhe,"open\nc,1\n',
    "closed in the wrong number of columns": b'b,"open\nc,1\nd","e",0\n',
    "longer than a field may be": b'"open,1\n' + b"b,0\n" * 40_000,
}


@pytest.mark.parametrize("case", SWALLOWING)
def test_every_line_that_a_stray_quotation_mark_swallows_is_counted(
    tmp_path: Path, case: str
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"text,label\na,1\n" + SWALLOWING[case])
    found = list(read_records(file))
    kept = [row for row in found if isinstance(row, dict)]
    reasons = {row.reason for row in found if isinstance(row, Unreadable)}
    assert len(found) == 1 + SWALLOWING[case].count(b"\n")
    assert kept[0] == {"text": "a", "label": "1"}
    for row in kept:
        assert row["text"] in ("a", "b")
        assert "\n" not in row["label"]
    assert "in a quotation that is not closed" in reasons


def test_a_stray_quotation_mark_among_the_column_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,"label\na,1\nb,"0"\nc,0\n')
    with pytest.raises(DataError, match=r"line 1 .*line 3.*quotation mark"):
        list(read_records(tmp_path / "t.csv"))


def test_faulty_lines_say_why_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    deep = b"[" * 100_000
    file.write_bytes(b'{"a": 1}\nnot json\n[1]\n\n\xff\xfe\n' + deep + b'\n{"a": 2}\n')
    assert list(read_records(file)) == [
        {"a": 1},
        Unreadable("not JSON"),
        Unreadable("not a JSON object"),
        Unreadable("not UTF-8 (byte 0xff, 'ÿ' in Windows-1252)"),
        Unreadable("JSON with a number that is too long, or nested too deep"),
        {"a": 2},
    ]


def test_faulty_rows_of_csv_say_why_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    long = b"x" * (byte_lines.MAX_ROW_BYTES + 1)
    field = b"y" * 200_000  # above the limit of a field that the csv library begins with
    file.write_bytes(b"text,label\na,1\nb\n" + long + b",0\n" + field + b",1\nc,0\n")
    found = list(read_records(file))
    assert [row for row in found if isinstance(row, dict)] == [
        {"text": "a", "label": "1"},
        {"text": field.decode(), "label": "1"},
        {"text": "c", "label": "0"},
    ]
    assert [row.reason for row in found if isinstance(row, Unreadable)] == [
        "wrong number of columns",
        "longer than 512 KiB",
    ]


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,text\na,b\n")
    with pytest.raises(DataError, match="'text' occurs twice"):
        list(read_records(tmp_path / "t.csv"))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_one_bad_string_of_parquet_costs_one_row(tmp_path: Path, kind: Any) -> None:
    raw = pa.array([b"good", b"\xff\xfe", None], pa.binary())
    layout = pa.large_binary() if kind == pa.large_string() else pa.binary()
    buffers = raw.cast(layout).buffers()
    if kind == pa.string_view():
        column = raw.cast(pa.binary_view()).view(kind)
    else:
        column = pa.Array.from_buffers(kind, 3, buffers)
    pq.write_table(pa.table({"text": column, "label": [0, 1, 2]}), tmp_path / "t.parquet")
    assert list(read_records(tmp_path / "t.parquet")) == [
        {"text": "good", "label": 0},
        Unreadable("not UTF-8 (byte 0xff, 'ÿ' in Windows-1252)"),
        {"text": None, "label": 2},
    ]


def test_a_dictionary_column_of_parquet_reads_as_its_words(tmp_path: Path) -> None:
    raw = pa.array([b"neg", b"p\xffs", b"neg"])
    words = pa.Array.from_buffers(pa.string(), 3, raw.buffers()).dictionary_encode()
    pq.write_table(pa.table({"label": words}), tmp_path / "t.parquet")
    assert list(read_records(tmp_path / "t.parquet")) == [
        {"label": "neg"},
        Unreadable("not UTF-8 (byte 0xff, 'ÿ' in Windows-1252)"),
        {"label": "neg"},
    ]


def test_a_bomb_in_parquet_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    text = pa.array(["a" * 1000] * 200_000)
    pq.write_table(
        pa.table({"text": text}), tmp_path / "t.parquet", compression="zstd", use_dictionary=False
    )
    assert (tmp_path / "t.parquet").stat().st_size < byte_lines.MIB
    with pytest.raises(DataError, match="compression bomb"):
        next(read_records(tmp_path / "t.parquet"))


def test_an_unknown_format_is_refused_with_those_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"supported: \.jsonl \.json \.csv"):
        read_records(tmp_path / "t.xlsx")
