"""Texts whose answer is a text: read, set aside with reasons, kept with their targets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from attar.data.config import FilesData, SummarizationData
from attar.data.fingerprint import data_fingerprint
from attar.data.load import load_data
from attar.errors import DataError


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join(map(json.dumps, rows)).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def articles(count: int, text: str = "article", target: str = "highlights") -> list[dict[str, Any]]:
    return [{text: f"article {i}", target: f"summary {i}\nof two lines"} for i in range(count)]


@pytest.mark.parametrize(
    ("task", "columns"),
    [("cnn_dailymail", ("article", "highlights")), ("xsum", ("document", "summary"))],
)
def test_each_task_is_read_by_its_own_columns(tmp_path: Path, task: Any, columns: Any) -> None:
    for split in ("train", "validation", "test"):
        write(tmp_path / task / f"{split}.jsonl.gz", articles(4, *columns))
    data = load_data(SummarizationData(task=task, path="."), tmp_path)
    assert (data.objective, data.label_names) == ("text_to_text", ())
    assert data.metrics == ("rouge1", "rouge2", "rougeL")
    assert list(data.splits) == ["train", "validation", "test"]
    train = data.split("train", labelled=True)
    assert train.texts[1] == ("article 1",)
    assert train.targets is not None
    assert train.targets[1] == "summary 1\nof two lines"


def test_rows_keep_their_target_when_some_are_chosen(tmp_path: Path) -> None:
    write(tmp_path / "xsum/train.jsonl", articles(50, "document", "summary"))
    train = load_data(SummarizationData(task="xsum", path=".", train_rows=7), tmp_path).split(
        "train"
    )
    assert train.targets is not None
    assert len(train) == len(train.targets) == 7
    for (text,), target in zip(train.texts, train.targets, strict=True):
        assert text.removeprefix("article ") == target.split()[1]


def test_a_row_without_its_text_or_target_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    bad = [
        {"article": "", "highlights": "a"},
        {"article": "a", "highlights": " "},
        {"article": "a", "highlights": None},
        {"article": "a", "highlights": [7]},
    ]
    write(tmp_path / "cnn_dailymail/train.jsonl", articles(4) + bad)
    settings = {"task": "cnn_dailymail", "path": "."}
    data = load_data(SummarizationData(**settings, max_set_aside=0.5), tmp_path)  # type: ignore[arg-type]
    assert len(data.split("train")) == 4
    reasons = {fault.row: fault.reason for fault in data.set_aside}
    assert reasons == {
        4: "empty article",
        5: "empty highlights",
        6: "no highlights",
        7: "highlights is not a text but a list",
    }
    with pytest.raises(DataError, match=r"4 of 8 rows cannot be used"):
        load_data(SummarizationData(**settings), tmp_path)  # type: ignore[arg-type]


def test_other_columns_are_refused_with_those_that_are_needed(tmp_path: Path) -> None:
    write(tmp_path / "xsum/train.jsonl", articles(3))
    told = "columns article, highlights; needed are document and summary"
    with pytest.raises(DataError, match=told):
        load_data(SummarizationData(task="xsum", path="."), tmp_path)


def test_a_missing_task_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    write(tmp_path / "xsum/train.jsonl", articles(3, "document", "summary"))
    with pytest.raises(DataError, match=r"task 'cnn_dailymail' needs the folder .* holds xsum"):
        load_data(SummarizationData(task="cnn_dailymail", path="."), tmp_path)


def test_the_fingerprint_sees_a_changed_summary(tmp_path: Path) -> None:
    config = SummarizationData(task="xsum", path=".")
    write(tmp_path / "xsum/train.jsonl", articles(3, "document", "summary"))
    before = data_fingerprint(config, tmp_path)
    assert data_fingerprint(config, tmp_path) == before
    write(tmp_path / "xsum/train.jsonl", articles(4, "document", "summary"))
    assert data_fingerprint(config, tmp_path) != before


def test_own_files_have_a_target_column(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", articles(40, "text", "answer"))
    write(tmp_path / "test.jsonl", [{"text": "no answer here"}])
    config = FilesData(path=".", objective="text_to_text", target="answer")
    data = load_data(config, tmp_path)
    assert len(data.split("train")) + len(data.split("validation")) == 40
    assert data.split("validation", labelled=True).targets
    assert data.split("test").targets == ("",)
    with pytest.raises(DataError, match="rows without a label"):
        data.split("test", labelled=True)
    with pytest.raises(DataError, match=r"no column 'target'.*text = and target ="):
        load_data(FilesData(path=".", objective="text_to_text"), tmp_path)


def test_classes_and_texts_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="2 classes, but text_to_text has none"):
        FilesData(path=".", objective="text_to_text", label_names=("a", "b"))


HUB_FORM = {
    "cnn_dailymail": (("abisee/cnn_dailymail", "3.0.0"), "article", "highlights", "id"),
    "xsum": (("EdinburghNLP/xsum", None), "document", "summary", "id"),
}
"""Task → what the hub is asked for, and the columns that its tables have."""


@pytest.mark.parametrize("task", HUB_FORM)
def test_the_hubs_form_gives_the_same_table(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real `datasets` tables in the hub's layout; only the download is left out."""
    datasets = pytest.importorskip("datasets")
    names, text, target, key = HUB_FORM[task]
    rows = [row | {key: f"{i:08x}"} for i, row in enumerate(articles(6, text, target))]
    parts = {"train": rows, "validation": rows[:3], "test": rows[3:]}
    found = datasets.DatasetDict({n: datasets.Dataset.from_list(r) for n, r in parts.items()})
    asked: list[Any] = []

    def load_dataset(*given: str | None, **settings: Any) -> Any:
        asked.append((given, settings))
        return found

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_data(SummarizationData(task=task, revision="abc"), Path())
    assert asked == [(names, {"revision": "abc"})]
    assert [(name, len(split)) for name, split in data.splits.items()] == [
        *(("train", 6), ("validation", 3), ("test", 3))
    ]
    test = data.split("test", labelled=True)
    assert test.texts == (("article 3",), ("article 4",), ("article 5",))
    assert test.targets == tuple(f"summary {i}\nof two lines" for i in (3, 4, 5))
    assert data.set_aside == ()


def test_a_failed_download_names_the_repository_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*given: str | None, **settings: Any) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    told = (
        r"'xsum' could not be loaded from the hub \(EdinburghNLP/xsum\): ConnectionError: no route "
        r"to host; .*set path = to a folder that holds xsum/<split>\.jsonl\.gz"
    )
    with pytest.raises(DataError, match=told):
        load_data(SummarizationData(task="xsum"), Path())
