"""`attar predict --input --output`: every row in its place, resumable, the answers of one call."""

from __future__ import annotations

import csv
import io
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attar.data.reading.records import read_records
from attar.errors import DataError, StoppedError, UsageError
from attar.export import predicted_files
from attar.export.deployed import Deployed
from attar.export.predicted_files import Form, predict_file
from attar.progress import Progress
from deployments import Deployments
from tiny_recipe import attar

TEXTS = ("a good movie", "", "bad " * 200, 'how "do" i, open\na socket', "ü film", "good\tfilm")


@pytest.fixture(scope="module")
def model(deployments: Deployments) -> Deployed:
    return Deployed(deployments.export("int8", "openvino")[0], threads=1)


@pytest.fixture(scope="module")
def pair_model(deployments: Deployments) -> Deployed:
    return Deployed(deployments.pairs()[0], threads=1)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicted_files, "CHUNK_ROWS", 4)


def write_csv(file: Path, texts: Any = TEXTS) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([("id", "message"), *enumerate(texts)])
    return file


def read_csv(file: Path, **settings: Any) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream, **settings))


def answered(model: Deployed, source: Path, target: Path, **settings: Any) -> Any:
    return predict_file(model, source, target, progress=Progress(quiet=True), **settings)


@pytest.mark.parametrize("header", [True, False])
def test_a_table_that_training_can_read_can_be_answered(
    model: Deployed, tmp_path: Path, header: bool
) -> None:
    source = tmp_path / "x.csv"
    source.write_text("id;message\n" * header + '1;good, bad\n2;"a;b"\n')
    column = "message" if header else "column2"
    form = Form(delimiter=";", header=header)
    answered(model, source, tmp_path / "y.csv", text=[column], form=form)
    assert [row[column] for row in read_csv(tmp_path / "y.csv")] == ["good, bad", "a;b"]


def test_a_single_column_with_another_delimiter_in_its_name_says_how_to_set_it(
    model: Deployed, tmp_path: Path
) -> None:
    source, target = tmp_path / "x.csv", tmp_path / "y.csv"
    source.write_text("id;message\n1;good\n")
    for text in ([], ["message"]):
        with pytest.raises(UsageError, match=r"'id;message'.*--delimiter ';'"):
            answered(model, source, target, text=text)


def test_every_row_of_a_csv_has_the_answer_that_python_gives(
    model: Deployed, tmp_path: Path
) -> None:
    target = tmp_path / "y.csv"
    done = answered(model, write_csv(tmp_path / "x.csv"), target, text=["message"])
    expected = [answer for i in (0, 4) for answer in model.predict(TEXTS[i : i + 4])]
    rows = read_csv(target)
    assert [row["message"] for row in rows] == list(TEXTS)
    assert [row["id"] for row in rows] == list("012345")
    assert [row["prediction"] for row in rows] == [one.label for one in expected]
    assert [float(row["probability"]) for row in rows] == [one.probability for one in expected]
    assert [row["is_cut"] for row in rows] == [str(one.is_cut) for one in expected]
    assert (done.rows, done.cut, done.faulty) == (6, 1, 0)
    assert not (tmp_path / "y.csv.part").exists()


@pytest.mark.parametrize("end", ["jsonl", "parquet", "npy", "tsv"])
def test_every_format_has_the_same_answers(model: Deployed, tmp_path: Path, end: str) -> None:
    source, target = write_csv(tmp_path / "x.csv"), tmp_path / f"y.{end}"
    answered(model, source, target, text=["message"])
    expected = [answer for i in (0, 4) for answer in model.predict(TEXTS[i : i + 4])]
    scores = [list(one.scores.values()) for one in expected]
    if end == "npy":
        np.testing.assert_array_equal(np.load(target), np.array(scores, dtype=np.float32))
        return
    if end == "jsonl":
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        assert [row["scores"] for row in rows] == [one.scores for one in expected]
    elif end == "parquet":
        table = pq.read_table(target)
        rows = table.to_pylist()
        assert json.loads(table.schema.metadata[b"label_names"]) == list(model.task.label_names)
        np.testing.assert_allclose([row["scores"] for row in rows], scores, rtol=1e-6)
    else:
        rows = [row for row in read_records(target) if isinstance(row, dict)]
        assert rows == read_csv(target, delimiter="\t")
    assert [row["message"] for row in rows] == list(TEXTS)
    assert [row["prediction"] for row in rows] == [one.label for one in expected]


def test_rows_are_read_from_every_format_and_a_blank_line_is_a_text(
    model: Deployed, tmp_path: Path
) -> None:
    texts = ["a good movie", "", "bad film"]
    expected = [one.scores for one in model.predict(texts)]
    (tmp_path / "x.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "y.csv").write_text("text\na good movie\n\nbad film\n")
    (tmp_path / "z.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    pq.write_table(pa.table({"text": texts, "n": [1, 2, 3]}), tmp_path / "p.parquet")
    for name in ("x.txt", "y.csv", "z.jsonl", "p.parquet"):
        answered(model, tmp_path / name, tmp_path / "out.jsonl")
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["scores"] for row in rows] == expected, name
        assert [row["text"] for row in rows] == texts
    assert [row["n"] for row in rows] == [1, 2, 3]


def test_a_row_that_cannot_be_answered_keeps_its_place_and_says_why(
    model: Deployed, tmp_path: Path
) -> None:
    lines = [
        '{"text": "good"}',
        "no json",
        '{"text": null}',
        '{"text": ["a"]}',
        '{"text": "caf\\ud83d"}',
        '{"other": 1, "text": "bad"}',
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines) + "\n")
    done = answered(model, tmp_path / "x.jsonl", tmp_path / "y.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    reasons = ["", "not JSON", "no text", "text is not a text", "half a character", ""]
    assert len(rows) == len(lines)
    for row, reason in zip(rows, reasons, strict=True):
        assert row["error"].startswith(reason)
        assert (row["prediction"] is None) is bool(reason)
    assert rows[5]["other"] == 1
    assert done.faulty == 4


def test_a_killed_job_goes_on_after_its_last_chunk_with_the_same_bytes(
    model: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "x.csv", [f"good film {i}" for i in range(11)])
    answered(model, source, tmp_path / "whole.csv", text=["message"])
    stops = iter([False, True])
    target = tmp_path / "y.csv"
    with pytest.raises(StoppedError, match=r"stopped after 8 of 11 rows, .*/y\.csv\.part;"):
        answered(model, source, target, text=["message"], should_stop=lambda: next(stops))
    assert not target.exists()
    asked: list[int] = []
    predict = Deployed.predict
    monkeypatch.setattr(
        Deployed, "predict", lambda self, rows, **_: asked.append(len(rows)) or predict(self, rows)
    )
    assert answered(model, source, target, text=["message"]).rows == 11
    assert asked == [3]
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_input_that_changed_is_begun_anew(model: Deployed, tmp_path: Path) -> None:
    source, target = write_csv(tmp_path / "x.csv"), tmp_path / "y.csv"
    with pytest.raises(StoppedError):
        answered(model, source, target, text=["message"], should_stop=lambda: True)
    write_csv(source, ["bad"] * 5)
    stream = io.StringIO()
    predict_file(model, source, target, text=["message"], progress=Progress(stream))
    assert "belongs to another input, model or settings; starting over" in stream.getvalue()
    assert [row["message"] for row in read_csv(target)] == ["bad"] * 5


def test_columns_that_are_kept_by_name_are_another_job_than_all(
    model: Deployed, tmp_path: Path
) -> None:
    lines = [*[{"text": "a"}] * 4, {"text": "a", "late": 1}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    target, stream = tmp_path / "y.jsonl", io.StringIO()
    with pytest.raises(StoppedError):
        answered(model, tmp_path / "x.jsonl", target, keep=["text"], should_stop=lambda: True)
    predict_file(model, tmp_path / "x.jsonl", target, progress=Progress(stream))
    assert "starting over" in stream.getvalue()


def test_a_pair_is_two_columns(pair_model: Deployed, tmp_path: Path) -> None:
    pairs = [("a good movie", "bad"), ("", "film")]
    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps({"one": a, "two": b}) + "\n" for a, b in pairs)
    )
    answered(pair_model, tmp_path / "x.jsonl", tmp_path / "y.npy", text=["one", "two"])
    expected = [list(one.scores.values()) for one in pair_model.predict(pairs)]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.float32(expected))
    with pytest.raises(UsageError, match="reads two columns: --text A --text B; got one"):
        answered(pair_model, tmp_path / "x.jsonl", tmp_path / "y.npy", text=["one"])


@pytest.mark.parametrize(
    ("source", "target", "settings", "said"),
    [
        ("x.csv", "y.csv", {}, "cannot guess the text column .* 'id', 'message'; name it with"),
        ("x.csv", "y.csv", {"text": ["massage"]}, "has no column 'massage' .--text.; its columns"),
        ("x.csv", "y.csv", {"text": ["message"], "keep": ["no"]}, "has no column 'no' .--keep"),
        ("x.csv", "y.xls", {}, r"y.xls must end in one of .csv, .tsv, .jsonl, .parquet, .npy"),
        ("x.doc", "y.csv", {}, r"x.doc must end in one of .jsonl, .json, .csv"),
        ("x.csv", "x.csv", {}, "input and output are the same file"),
        ("x.csv", "no/y.csv", {}, "does not exist; create it first"),
        ("x.csv", "folder.csv", {}, "folder.csv is a folder; name a file"),
        ("x.csv", "y.csv", {"side": "passage"}, "--side is query or passage, for a model that emb"),
        ("taken.csv", "y.csv", {}, "has a column 'prediction', which y.csv needs"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_answered(
    model: Deployed, tmp_path: Path, source: str, target: str, settings: Any, said: str
) -> None:
    write_csv(tmp_path / "x.csv")
    (tmp_path / "taken.csv").write_text("text,prediction\ngood,bad\n")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=said):
        answered(model, tmp_path / source, tmp_path / target, **settings)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "text,id\n", "x.csv has no rows"),
        ("x.txt", "", "x.txt has no rows"),
        ("x.jsonl", "{1}\n[]\n", "none of its first 2 rows can be read: not JSON"),
    ],
)
def test_a_file_without_a_row_says_so(
    model: Deployed, tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        answered(model, tmp_path / name, tmp_path / "y.csv")


def test_a_text_with_a_lone_carriage_return_stays_one_row(model: Deployed, tmp_path: Path) -> None:
    texts = ["a\rb", "c\r\nd", "good"]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "x.jsonl").write_text(lines)
    answered(model, tmp_path / "x.jsonl", tmp_path / "y.csv")
    assert [row["text"] for row in read_csv(tmp_path / "y.csv")] == texts


def test_values_of_parquet_that_json_lacks_are_written_as_text_or_null(
    model: Deployed, tmp_path: Path
) -> None:
    table = {"text": ["good"], "price": [Decimal("1.20")], "x": [math.nan], "words": [["a"]]}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    stream = io.StringIO()
    predict_file(
        model, tmp_path / "x.parquet", tmp_path / "y.jsonl", progress=Progress(stream), keep=None
    )
    row = json.loads((tmp_path / "y.jsonl").read_text(), parse_constant=pytest.fail)
    assert (row["price"], row["x"]) == ("1.20", None)
    assert "words" not in row
    assert "the output lacks the column 'words'" in stream.getvalue()
    answered(model, tmp_path / "x.parquet", tmp_path / "y.csv", keep=["price", "price"])
    assert [*read_csv(tmp_path / "y.csv")[0]][:2] == ["price", "prediction"]
    assert read_csv(tmp_path / "y.csv")[0]["price"] == "1.20"
    with pytest.raises(UsageError, match=r"'words' of .* is a list or an object"):
        answered(model, tmp_path / "x.parquet", tmp_path / "z.csv", keep=["words"])


def test_a_file_without_an_answer_and_a_column_that_comes_late_are_errors(
    model: Deployed, tmp_path: Path
) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": null}\n' * 3)
    with pytest.raises(DataError, match=r"none of its 3 rows .* \(the last one: no text\)"):
        answered(model, tmp_path / "x.jsonl", tmp_path / "y.jsonl")
    assert not (tmp_path / "y.jsonl.part").exists()
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n' * 4 + '{"text": "a", "late": 1}\n')
    with pytest.raises(DataError, match="has a column 'late' that its first 4 rows lack"):
        answered(model, tmp_path / "x.jsonl", tmp_path / "y.csv")
    answered(model, tmp_path / "x.jsonl", tmp_path / "y.jsonl")


def test_a_text_that_has_no_token_is_a_row_without_an_answer(
    model: Deployed, tmp_path: Path
) -> None:
    (tmp_path / "x.txt").write_text("good\nbad\n")
    predict = Deployed.predict

    def refuse(self: Deployed, rows: Any, **_: Any) -> Any:
        if "bad" in rows:
            raise UsageError(f"text {rows.index('bad') + 1} of {len(rows)} has no token")
        return predict(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deployed, "predict", refuse)
        assert answered(model, tmp_path / "x.txt", tmp_path / "y.jsonl").faulty == 1
    last = json.loads((tmp_path / "y.jsonl").read_text().splitlines()[1])
    assert (last["prediction"], last["error"]) == (None, "has no token")


def test_the_command_writes_the_file_and_says_what_was_cut(model: Deployed, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "x.csv")
    options = ("--input", source, "--text", "message", "--output", tmp_path / "y.csv")
    finished = attar("predict", model.folder, *options, "--threads", "1", "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["rows"] == 6
    assert "1 of 6 texts have more than 48 tokens and were truncated" in finished.stderr
    assert len(read_csv(tmp_path / "y.csv")) == 6
    finished = attar("predict", model.folder, "--input", source)
    assert finished.returncode == 2
    assert "--input and --output are needed together" in finished.stderr


def test_two_arguments_are_a_pair_as_for_the_standalone_script(pair_model: Deployed) -> None:
    finished = attar("predict", pair_model.folder, "a good movie", "bad", "--json")
    assert finished.returncode == 0, finished.stderr
    (expected,) = pair_model.predict([("a good movie", "bad")])
    assert json.loads(finished.stdout)["scores"] == pytest.approx(expected.scores)


def test_a_rate_is_told_of_rows_after_the_first_chunk_if_they_fill_another(
    model: Deployed, tmp_path: Path
) -> None:
    for rows, is_told in ((7, False), (8, True)):
        source = write_csv(tmp_path / f"{rows}.csv", ["a film"] * rows)
        done = answered(model, source, tmp_path / f"{rows}.jsonl", text=["message"])
        assert (done.rows, done.rows_per_s is not None) == (rows, is_told)
