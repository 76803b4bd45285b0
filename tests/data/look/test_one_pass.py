"""The summary of data: every count is exact where it fits into memory, and bounded where not."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attar.data.config import FilesData
from attar.data.files import load_files
from attar.data.look import lengths, one_pass
from attar.data.look.lengths import BATCH, Measure, roughly_tokens_of, tokens_of
from attar.data.look.one_pass import Row, summarize, summary_of, summary_of_files
from attar.data.reading.byte_lines import Unreadable


def rows(*texts: str, label: str = "x") -> list[Row]:
    return [((text,), label) for text in texts]


@pytest.mark.parametrize("seed", range(5))
def test_repeated_rows_and_rows_of_train_are_counted(seed: int) -> None:
    draw = random.Random(seed)
    train, validation = (draw.choices("abcdef", k=draw.randint(1, 9)) for _ in range(2))
    found = summarize("d", {"train": rows(*train), "validation": rows(*validation)}).splits
    assert found["train"].repeated == len(train) - len(set(train))
    assert found["validation"].in_train == sum(text in train for text in validation)
    assert found["train"].in_train == 0


def test_more_texts_than_memory_holds_are_counted_by_a_part_of_their_hashes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(one_pass, "MAX_HASHES", 1000)
    twice = [f"text {i % 8000}" for i in range(16000)]
    found = summarize("d", {"train": rows(*twice)})
    assert found.is_estimate
    assert found.splits["train"].repeated == pytest.approx(8000, rel=0.15)


@pytest.mark.parametrize(("most_rows", "most_characters"), [(512, math.inf), (10**6, 30_000)])
def test_lengths_of_many_rows_are_those_of_rows_evenly_spread(
    monkeypatch: pytest.MonkeyPatch, most_rows: int, most_characters: float
) -> None:
    monkeypatch.setattr(lengths, "MAX_LENGTHS", most_rows)
    measured = 0

    def count(batch: Any) -> list[int]:
        nonlocal measured
        measured += len(batch)
        return [len(texts[0]) for texts in batch]

    texts = ("x" * (1 + i % 100) for i in range(20_000))
    found = summarize("d", {"train": rows(*texts)}, Measure("letters", count, most_characters))
    spread = found.splits["train"].lengths
    assert measured < 5000
    assert spread is not None
    assert (spread.p50, spread.p95) == (pytest.approx(50, abs=4), pytest.approx(95, abs=4))
    assert spread.longest >= 96


def test_broken_texts_of_all_splits_have_a_note() -> None:
    found = summarize("d", {"train": rows("plain", "AT&amp;T"), "test": rows("AT&amp;T")})
    note = found.notes[-1]  # after that of the text in both splits
    assert note.startswith("texts with HTML entities: 2 of 3, such as 'AT&amp;T'")


def test_classes_are_counted_as_a_run_would_read_them() -> None:
    found = summarize("d", {"train": [*rows("a", "b", label="1"), *rows("c", label="1.0")]})
    assert found.splits["train"].classes == {"1": 3}
    many = [((str(i),), f"label {i}") for i in range(5000)]
    found = summarize("d", {"train": many}).splits["train"]
    assert (found.classes, found.num_labels) == ({}, one_pass.MAX_CLASSES + 1)


def test_what_cannot_be_used_is_counted_by_its_reason() -> None:
    bad: list[Row] = [Unreadable("empty text")] * 3
    found = summarize("d", {"train": [*bad, *rows("a")]})
    assert found.splits["train"].set_aside == {"empty text": 3}
    assert "left out of train: 3 × empty text" in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("splits", "note"),
    [
        (
            {"train": [*rows("a", label="x"), *rows("b", label="y"), *rows("c", label="x|y")]},
            "'x|y' (1 rows) look like several labels joined by '|'",
        ),
        (
            {"train": [*rows(*map(str, range(398))), *rows("y", "z", label="y")]},
            "99.5% of the rows are 'x'",
        ),
        (
            {"train": rows("a", "b"), "validation": rows("a", "b")},
            "validation is a copy of train: rows with a text of train: 2 of 2",
        ),
        (
            {"train": rows("a", "b"), "validation": rows("a", "c", "d")},
            "validation overlaps train: rows with a text of train: 1 of 3",
        ),
        (
            {"train": [*rows("a", label="x"), *rows("a", "b", label="y")]},
            "rows of train with the text of another row and a different label: 1",
        ),
        (
            {"train": [*rows("a", label="Pos"), *rows("b", label="pos")]},
            "with almost the same spelling",
        ),
    ],
)
def test_what_looks_wrong_is_said(splits: dict[str, list[Row]], note: str) -> None:
    found = summarize("d", splits, column="label")
    assert len(found.notes) == 1
    assert note in found.notes[0]
    assert note in "\n".join(found.lines())


def test_nothing_is_said_of_plain_data() -> None:
    plain = {"train": [*rows("a", "b", label="x"), *rows("c", label="y")], "test": rows("d")}
    assert summarize("d", plain, column="label").notes == ()


def csv(folder: Path, count: int) -> FilesData:
    lines = [f"text number {i},{('good', 'bad')[i % 2]}" for i in range(count)]
    (folder / "d.csv").write_text("\n".join(["text,label", *lines, ",good"]))
    return FilesData(path="d.csv")


def test_files_as_a_stream_and_in_memory_have_one_summary(tmp_path: Path) -> None:
    config = csv(tmp_path, 200)
    streamed = summary_of_files(config, tmp_path, "d")
    held = summary_of(load_files(config, tmp_path, "d"))
    assert streamed.splits["train"].classes == {"good": 100, "bad": 100}
    together = [split.classes for split in held.splits.values()]
    assert sum(split["good"] for split in together) == 100
    assert streamed.splits["train"].set_aside == held.splits["train"].set_aside
    assert held.splits["validation"].rows == 20


def test_of_several_labels_each_is_counted_and_left_out_rows_are_said(tmp_path: Path) -> None:
    lines = [f"text {i},{('a|b', 'b', '')[i % 3]}" for i in range(30)]
    (tmp_path / "d.csv").write_text("\n".join(["text,label", *lines, ",a"]))
    config = FilesData(path="d.csv", objective="multi_label", max_set_aside=0.1)
    found = summary_of(load_files(config, tmp_path, "d"))
    whole = [split.classes for split in found.splits.values()]
    assert sum(split["a"] for split in whole) == 10
    assert sum(split["b"] for split in whole) == 20
    assert set(found.splits["train"].classes) == {"a", "b"}
    assert sum(sum(split.set_aside.values()) for split in found.splits.values()) == 1


def test_a_limit_of_rows_reads_no_more(tmp_path: Path) -> None:
    found = summary_of_files(csv(tmp_path, 200), tmp_path, "d", first_rows=50)
    assert found.splits["train"].rows == 50
    assert "the first 50 rows" in found.lines()[0]


def test_a_summary_in_a_result_reads_back_as_it_was(tmp_path: Path) -> None:
    found = summary_of_files(csv(tmp_path, 20), tmp_path, "d")
    assert type(found).from_json(json.loads(json.dumps(found.as_json()))) == found


@pytest.mark.parametrize("measure_of", [tokens_of, roughly_tokens_of])
def test_tokens_are_those_of_the_model_and_none_is_cut(
    tiny_bert: Path, measure_of: Callable[[Path], Measure]
) -> None:
    measure = measure_of(tiny_bert)
    assert measure.of([("a film",), ("a film", "a file"), (" ".join(["film"] * 300),)]) == [
        *(4, 7, 302)
    ]


def test_rows_are_read_once_and_kept_by_nobody() -> None:
    alive = 0

    class Text(str):
        def __init__(self, _: str) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    most = 0

    def stream() -> Iterator[Row]:
        nonlocal most
        for i in range(5000):
            most = max(most, alive)
            yield (Text(f"text {i}"),), "x"

    summarize("d", {"train": stream()})
    assert most <= 2 * BATCH
