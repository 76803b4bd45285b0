"""Own files: which file is which split, which column is the text, and who is held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from attar.data.config import FilesData, GlueData
from attar.data.files import load_files
from attar.data.glue import load_glue
from attar.data.tables import TextData
from attar.errors import DataError, UsageError

ROWS = [{"text": f"sentence number {i}", "label": ("good", "bad")[i % 2]} for i in range(40)]


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def load(folder: Path, **settings: Any) -> TextData:
    return load_files(FilesData(**{"path": "mine", **settings}), folder, "mine")


def test_a_folder_gives_each_split_its_file(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    write(tmp_path / "mine" / "dev.jsonl", ROWS[:4])
    write(tmp_path / "mine" / "test.jsonl", [{"text": "hidden"}])
    data = load(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 40,
        "validation": 4,
        "test": 1,
    }
    assert data.label_names == ("bad", "good")
    assert data.split("train").labels[:2].tolist() == [1, 0]
    assert data.split("test").labels.tolist() == [-1]


def test_the_held_out_tenth_is_disjoint_and_does_not_depend_on_the_order(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    write(tmp_path / "turned" / "train.jsonl", ROWS[::-1])
    data, turned = load(tmp_path), load(tmp_path, path="turned")
    train, validation = data.split("train"), data.split("validation")
    assert len(validation) == 4
    assert len(train) + len(validation) == len(ROWS)
    assert not set(train.texts) & set(validation.texts)
    assert set(turned.split("validation").texts) == set(validation.texts)


def test_the_share_that_is_held_out_is_a_setting(tmp_path: Path) -> None:
    """Its rows include those of a smaller share, so models stay comparable on them."""
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    fewer, more = (load(tmp_path, validation_share=share) for share in (0.1, 0.25))
    assert [len(data.split("validation")) for data in (fewer, more)] == [4, 10]
    assert set(fewer.split("validation").texts) < set(more.split("validation").texts)


def test_a_share_to_hold_out_beside_a_validation_file_is_refused(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        write(tmp_path / "mine" / f"{name}.jsonl", ROWS)
    with pytest.raises(DataError, match=r"0\.2 holds out .*dev\.jsonl .*; remove"):
        load(tmp_path, validation_share=0.2)


def test_equal_texts_are_held_out_together(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS + ROWS)
    data = load(tmp_path)
    assert not set(data.split("train").texts) & set(data.split("validation").texts)
    assert len(data.split("train")) + len(data.split("validation")) == 80


def test_a_glob_reads_shards_as_one_train_split(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "part-a.jsonl", ROWS[:30])
    write(tmp_path / "mine" / "part-b.jsonl", ROWS[30:])
    write(tmp_path / "mine" / "validation.jsonl", ROWS[:5])
    data = load(tmp_path, path="mine/*.jsonl")
    assert data.split("train").texts == tuple((row["text"],) for row in ROWS)
    assert len(data.split("validation")) == 5


def test_numbered_shards_of_a_split_are_read_in_order(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train-00001-of-00002.jsonl", ROWS[20:])
    write(tmp_path / "mine" / "train-00000-of-00002.jsonl", ROWS[:20])
    write(tmp_path / "mine" / "valid.jsonl", ROWS[:5])
    assert load(tmp_path).split("train").texts == tuple((row["text"],) for row in ROWS)


def test_one_file_is_train(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "questions.jsonl", ROWS)
    assert len(load(tmp_path, path="mine/questions.jsonl").split("train")) == 36
    absolute = str(tmp_path / "mine" / "questions.jsonl")
    assert len(load(tmp_path / "elsewhere", path=absolute).split("train")) == 36
    (tmp_path / "below").mkdir()
    assert len(load(tmp_path / "below", path="../mine/*.jsonl").split("train")) == 36


def test_a_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    with pytest.raises(DataError, match="claimed by the splits 'train' and 'validation'"):
        load(tmp_path, validation="train")


def test_test_may_serve_as_validation(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    write(tmp_path / "mine" / "test.jsonl", ROWS[:6])
    assert {n: len(s) for n, s in load(tmp_path, validation="test").splits.items()} == {
        "train": 40,
        "validation": 6,
    }


def test_a_stem_without_a_file_names_those_that_are_there(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    with pytest.raises(DataError, match=r"validation = 'held'.*it has train;"):
        load(tmp_path, validation="held")
    with pytest.raises(DataError, match=r"no data file at .*nowhere"):
        load(tmp_path, path="nowhere")


@pytest.mark.parametrize("path", ["x" * 10_000, "**x"])
def test_a_path_that_no_file_system_takes_is_a_mistake_of_the_recipe(
    tmp_path: Path, path: str
) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: .*name a folder, or a glob") as refused:
        load(tmp_path, path=path)
    assert len(str(refused.value)) < 300


def test_a_path_with_a_nul_byte_names_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data file at"):
        load(tmp_path, path="a\0b")


def test_glue_takes_no_path_that_the_file_system_does_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: File name too long"):
        load_glue(GlueData(task="sst2", path="x" * 10_000), tmp_path, "glue")


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    (tmp_path / "mine" / "train.csv").write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"'train' has 2 files.*train\.csv.*train\.jsonl"):
        load(tmp_path)


@pytest.mark.parametrize(
    "columns",
    [
        ("text",),
        ("premise", "hypothesis"),
        ("question", "sentence"),
        ("remark",),
        ("text", "title"),
    ],
)
def test_plain_text_columns_are_guessed(tmp_path: Path, columns: tuple[str, ...]) -> None:
    rows = [
        {**{name: f"{name} {i}" for name in columns}, "label": i % 2, "id": str(i), "stars": "5"}
        for i in range(20)
    ]
    write(tmp_path / "mine" / "train.jsonl", rows)
    first = load(tmp_path).split("train").texts[0]
    expected = columns[:1] if "text" in columns else columns
    assert [text.split()[0] for text in first] == list(expected)


def test_columns_that_are_not_plain_are_asked_for_by_name(tmp_path: Path) -> None:
    rows = [{"title": f"t{i}", "body": f"b{i}", "label": i % 2} for i in range(20)]
    write(tmp_path / "mine" / "train.jsonl", rows)
    with pytest.raises(
        DataError, match=r"cannot guess the text column.*'title', 'body', 'label'.*text = "
    ):
        load(tmp_path)
    assert load(tmp_path, text=("title", "body")).split("train").texts[0] == ("t0", "b0")


def test_a_named_column_that_is_missing_is_told_with_those_that_exist(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    with pytest.raises(DataError, match="no column 'kind'; its columns are 'text', 'label'"):
        load(tmp_path, label="kind")
    with pytest.raises(DataError, match="no column 'body'"):
        load(tmp_path, text="body")


def test_label_names_give_the_order_of_the_classes(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    data = load(tmp_path, label_names=("good", "bad"))
    by_text = dict(zip(data.split("train").texts, data.split("train").labels, strict=True))
    assert len(by_text) == 36
    for (text,), label in by_text.items():
        assert label == int(text.split()[-1]) % 2


def test_a_column_of_labels_has_one_kind_whatever_the_format(tmp_path: Path) -> None:
    """Twelve codes, of which three would read as numbers; the fault that is never to return."""
    rows = [{"text": f"t {i}", "label": f"{i % 12 + 1:02d}"} for i in range(48)]
    write(tmp_path / "jsonl" / "train.jsonl", rows)
    for name, separator in (("csv", ","), ("tsv", "\t")):
        (tmp_path / name).mkdir()
        lines = [separator.join(row.values()) for row in rows]
        (tmp_path / name / f"train.{name}").write_text("\n".join([separator.join(rows[0]), *lines]))
    (tmp_path / "parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet" / "train.parquet")
    for name in ("jsonl", "csv", "tsv", "parquet"):
        data = load(tmp_path, path=name)
        assert data.label_names == tuple(f"{i:02d}" for i in range(1, 13)), name
        assert data.set_aside == (), name
        assert sum(map(len, data.splits.values())) == 48, name


def test_splits_may_write_whole_numbers_in_two_ways(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for split, labels in (("train", ("1.0", "0.0")), ("validation", ("1", "0"))):
        lines = [f"t {i},{labels[i % 2]}" for i in range(20)]
        (tmp_path / "mine" / f"{split}.csv").write_text("\n".join(["text,label", *lines]))
    data = load(tmp_path)
    assert data.label_names == ("0", "1")
    for split in ("train", "validation"):
        assert data.split(split).labels.tolist() == [1, 0] * 10


def test_numbers_among_the_texts_are_texts_as_written(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    lines = ['{"text": 4711, "label": "a"}', '{"text": 1.50, "label": "b"}'] * 10
    (tmp_path / "mine" / "train.jsonl").write_text("\n".join(lines))
    splits = load(tmp_path).splits.values()
    assert {text for split in splits for (text,) in split.texts} == {"4711", "1.50"}


def test_a_regression_reads_numbers_and_names_its_metrics(tmp_path: Path) -> None:
    write(
        tmp_path / "mine" / "train.jsonl", [{"text": f"t {i}", "label": i / 4} for i in range(20)]
    )
    data = load(tmp_path, objective="regression")
    assert data.label_names == ()
    assert data.metrics == ("pearson", "spearman")
    assert data.split("train").labels.dtype.name == "float32"


def test_lines_of_plain_text_are_unlabelled(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.txt").write_text("".join(f"line {i}\r\n" for i in range(20)))
    data = load(tmp_path)
    assert len(data.split("train")) == 18
    for (text,) in data.split("train").texts:
        assert not text.endswith("\r")
    with pytest.raises(DataError, match="rows without a label"):
        data.split("train", labelled=True)


def test_too_few_rows_to_hold_out_any_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.txt").write_text("only one\n")
    with pytest.raises(DataError, match="1 usable rows in train, too few"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "line", "advice"),
    [
        ("train.csv", "text;label", 'look separated by semicolons: set delimiter = ";"'),
        ("train.csv", "text\tlabel", r'look separated by tabs: set delimiter = "\t"'),
        ("train.txt", "text\tlabel", r'look separated by tabs: set delimiter = "\t"'),
        ("train.tsv", "text,label", 'do not look separated by tabs: set delimiter = ","'),
        ("train.txt", "a sentence", "has no labels: remove text, or use .csv, .tsv or .jsonl"),
        ("train.csv", "text,stars", "choose among them with text = and label ="),
        (
            "train.csv",
            "a film,bad",
            "if the first line is a row and not a header, set header = false",
        ),
    ],
)
def test_a_missing_column_comes_with_the_advice_that_helps(
    tmp_path: Path, file: str, line: str, advice: str
) -> None:
    (tmp_path / file).write_text(f"{line}\n" * 9)
    with pytest.raises(DataError) as caught:
        load(tmp_path, path=file, text="review")
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("file", "settings", "lines"),
    [
        ("d.csv", {"delimiter": ";"}, ["text;label", '"a; b";bad', "c;good"]),
        ("d.tsv", {"delimiter": "|"}, ["text|label", "a; b|bad", "c|good"]),
        ("d.txt", {"delimiter": "\t"}, ["text\tlabel", '"a; b"\tbad', "c\tgood"]),
        (
            "d.csv",
            {"delimiter": ";", "header": False, "text": "column1", "label": "column2"},
            ['"a; b";bad', "c;good"],
        ),
        ("d[1].csv", {}, ["text,label", '"a; b",bad', "c,good"]),
    ],
)
def test_a_table_has_the_delimiter_and_the_header_that_are_set(
    tmp_path: Path, file: str, settings: dict[str, Any], lines: list[str]
) -> None:
    head, rows = ([], lines) if settings.get("header") is False else (lines[:1], lines[1:])
    numbered = [row.replace("c", f"c{i}") for i in range(10) for row in rows]
    (tmp_path / file).write_text("\n".join(head + numbered))
    data = load(tmp_path, path=file, **settings)
    assert data.label_names == ("bad", "good")
    assert ("a; b",) in [*data.split("train").texts, *data.split("validation").texts]
    assert sum(map(len, data.splits.values())) == 20


@pytest.mark.parametrize("delimiter", ["", "::", '"', "\n"])
def test_a_delimiter_is_one_character_that_ends_no_line(delimiter: str) -> None:
    with pytest.raises(ValidationError, match="must be one character"):
        FilesData(path="d.csv", delimiter=delimiter)


def test_a_column_that_is_both_text_and_label_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", ROWS)
    with pytest.raises(DataError, match="'text' is both the text and the label"):
        load(tmp_path, text="text", label="text")
