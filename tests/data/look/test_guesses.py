"""What a file is, guessed: the usual exports are right at once, and whatever is uncertain is said
with the flag that changes it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attar.data.look.form import CHANGES, Wishes
from attar.data.look.guesses import Guessed, guess
from attar.errors import AttarError, UsageError

MESSAGES = [
    {
        "id": i,
        "message": f"please help, my order number {i} is late",
        "category": ("billing", "delivery", "account")[i % 3],
        "stars": i % 5,
    }
    for i in range(60)
]


def table(file: Path, rows: list[dict[str, Any]], sign: str = ",", header: bool = True) -> Path:
    def cell(value: Any) -> str:
        return f'"{value}"' if sign in str(value) else str(value)

    lines = [sign.join(cell(value) for value in row.values()) for row in rows]
    file.write_text("\n".join([sign.join(rows[0]), *lines] if header else lines) + "\n")
    return file


def settings(found: Guessed) -> dict[str, Any]:
    return found.config.model_dump(exclude_defaults=True, exclude={"path", "source"})


def why(found: Guessed, what: str) -> str:
    return next(f"{g.value}: {g.why}" for g in found.guesses if g.what == what)


@pytest.mark.parametrize(
    ("name", "sign", "expected"),
    [
        ("d.csv", ",", {}),
        ("d.csv", ";", {"delimiter": ";"}),
        ("d.csv", "\t", {"delimiter": "\t"}),
        ("d.csv", "|", {"delimiter": "|"}),
        ("d.tsv", "\t", {}),
        ("d.txt", "\t", {"delimiter": "\t"}),
    ],
)
def test_the_delimiter_is_found(
    tmp_path: Path, name: str, sign: str, expected: dict[str, str]
) -> None:
    found = guess(table(tmp_path / name, MESSAGES, sign), Wishes())
    assert settings(found) == expected | {"text": "message", "label": "category"}
    assert found.task == "classes"
    assert "'stars' could be it too" in why(found, "label")


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet"])
def test_other_formats_need_no_form(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"d.{form}"
    lines = "".join(json.dumps(row) + "\n" for row in MESSAGES).encode()
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(MESSAGES), file)
    else:
        file.write_bytes(gzip.compress(lines) if form.endswith("gz") else lines)
    assert settings(guess(file, Wishes())) == {"text": "message", "label": "category"}


def test_a_delimiter_that_could_be_two_is_said(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text;a,label\n" + "one two three four;x,y\n" * 30)
    found = guess(tmp_path / "d.csv", Wishes())
    assert "with semicolon too" in why(found, "delimiter")
    assert guess(tmp_path / "d.csv", Wishes(delimiter=";")).config.delimiter == ";"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"a": f"a sentence of words {i}", "b": "xy"[i % 2]} for i in range(60)], "'x' from"),
        ([{"a": f"a sentence of words {i}", "b": i % 3} for i in range(60)], "the number 0"),
    ],
)
def test_a_first_line_that_is_a_row_is_no_header(
    tmp_path: Path, rows: list[dict[str, Any]], said: str
) -> None:
    file = table(tmp_path / "d.csv", rows, header=False)
    found = guess(file, Wishes())
    assert settings(found) == {"header": False, "text": "column1", "label": "column2"}
    assert said in why(found, "header")
    with pytest.raises(UsageError, match="column"):
        guess(file, Wishes(header=True, text=("column1",)))


def test_the_user_has_the_last_word(tmp_path: Path) -> None:
    file = table(tmp_path / "d.csv", MESSAGES)
    found = guess(file, Wishes(text=("category", "message"), label="stars", task="numbers"))
    assert settings(found) == {
        "text": ("category", "message"),
        "label": "stars",
        "objective": "regression",
    }
    with pytest.raises(UsageError, match=r"no such column \(did you mean 'message'"):
        guess(file, Wishes(text=("mesage",)))


PAIR = [{"premise": f"a man walks {i}", "hypothesis": f"he sits {i}"} for i in range(40)]


@pytest.mark.parametrize(
    ("rows", "wishes", "expected", "task"),
    [
        (
            [{**row, "label": "yn"[i % 2]} for i, row in enumerate(PAIR)],
            Wishes(),
            {"text": ("premise", "hypothesis"), "label": "label"},
            "pairs",
        ),
        (
            [
                {
                    "title": f"about order {i}",
                    "body": f"my order of number {i} is late",
                    "to": i % 2,
                }
                for i in range(40)
            ],
            Wishes(task="pairs"),
            {"text": ("body", "title"), "label": "to"},
            "pairs",
        ),
        (
            [{"review": f"it was film number {i}", "score": i / 7} for i in range(40)],
            Wishes(),
            {"text": "review", "label": "score", "objective": "regression"},
            "numbers",
        ),
        (
            [{"review": f"it was film number {i}", "stars": 1 + i % 5} for i in range(40)],
            Wishes(),
            {"text": "review", "label": "stars"},
            "classes",
        ),
        (
            [{"note": f"a message without any label {i}"} for i in range(40)],
            Wishes(),
            {"text": "note", "objective": "causal_lm"},
            "unlabelled",
        ),
        (
            [{"page": "word " * 80 + str(i)} for i in range(20)],
            Wishes(),
            {"text": "page", "objective": "causal_lm"},
            "running_text",
        ),
    ],
)
def test_the_task_follows_from_the_columns(
    tmp_path: Path, rows: list[dict[str, Any]], wishes: Wishes, expected: Any, task: str
) -> None:
    found = guess(table(tmp_path / "d.csv", rows), wishes)
    assert found.task == task
    defaults = {"label": "label"}
    assert {**defaults, **settings(found)} == {**defaults, **expected}


def test_several_columns_of_texts_are_listed(tmp_path: Path) -> None:
    rows = [{**row, "reply": f"we are sorry for all of it, {i}"} for i, row in enumerate(MESSAGES)]
    found = guess(table(tmp_path / "d.csv", rows), Wishes())
    assert "message: of several columns of texts ('reply' too)" in why(found, "text")


def test_ids_that_occur_again_do_not_tell_rows_apart(tmp_path: Path) -> None:
    rows = [{**row, "id": i // 2} for i, row in enumerate(MESSAGES)]
    assert settings(guess(table(tmp_path / "d.csv", rows), Wishes()))["id"] == ""


@pytest.mark.parametrize(
    ("numbers", "name"), [(range(48_000, 48_060), "label_code"), ([*range(30)] * 2, "ticket_no")]
)
def test_numbers_like_those_of_tickets_are_no_label(
    tmp_path: Path, numbers: Sequence[int], name: str
) -> None:
    rows = [{"message": f"please help, order {i} is late", name: n} for i, n in enumerate(numbers)]
    found = guess(table(tmp_path / "d.csv", rows), Wishes())
    assert found.task == "unlabelled" and found.config.label == "label"
    assert why(found, "label") == f"none: {name!r}: whole numbers like those of tickets"
    rows = [row | {"stars": i % 50 / 2} for i, row in enumerate(rows)]
    found = guess(table(tmp_path / "d.csv", rows), Wishes(task="numbers"))
    assert found.config.label == "stars"
    found = guess(table(tmp_path / "d.csv", rows), Wishes(label=name))
    assert found.task == "numbers"


def test_a_folder_has_a_file_for_each_split(tmp_path: Path) -> None:
    for stem in ("tickets", "val", "test"):
        table(tmp_path / f"{stem}.csv", MESSAGES)
    found = guess(tmp_path, Wishes())
    assert settings(found) == {
        **{"text": "message", "label": "category"},
        **{"train": "tickets", "validation": "val"},
    }
    table(tmp_path / "more.csv", MESSAGES)
    with pytest.raises(UsageError, match=r"no file named train; it has more, test, tickets, val"):
        guess(tmp_path, Wishes())


def test_a_folder_of_text_files_is_running_text(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"page{i}.txt").write_text("a page\nof text\n")
    found = guess(tmp_path, Wishes())
    assert found.task == "running_text"
    assert settings(found) == {"document": "file", "objective": "causal_lm"}


@pytest.mark.parametrize("name", ["d.xlsx", "none.csv"])
def test_what_is_no_data_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "d.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"an unknown format|does not exist"):
        guess(tmp_path / name, Wishes())


def test_every_guess_that_may_be_wrong_has_a_flag(tmp_path: Path) -> None:
    found = guess(table(tmp_path / "d.csv", MESSAGES, ";"), Wishes())
    assert [guess.what for guess in found.guesses] == list(CHANGES)
    assert all(guess.change for guess in found.guesses)


@pytest.mark.parametrize("content", [b"", b"text,label\n", bytes(range(256)) * 4, b'a\rb,"\nc'])
def test_what_has_no_rows_is_refused_in_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(AttarError, match=r"d\.csv"):
        guess(tmp_path / "d.csv", Wishes())
