"""Nine tasks with GLUE's labels and metrics, from files of any copy and from the hub's form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from attar.data.config import GlueData, GlueTask
from attar.data.glue import OUR_SPLITS, TASKS, load_glue
from attar.data.tables import TextData
from attar.errors import DataError


def load(task: str, path: Path | None, **settings: Any) -> TextData:
    where = None if path is None else str(path)
    return load_glue(GlueData(task=task, path=where, **settings), Path(), "glue")  # type: ignore[arg-type]


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_every_task_has_its_row() -> None:
    assert set(TASKS) == set(get_args(GlueTask))
    numbers = {name: len(task.label_names) for name, task in TASKS.items()}
    assert numbers == dict.fromkeys(TASKS, 2) | {"stsb": 0, "mnli": 3}


SHARED = {
    "cola": {"train": 8551, "validation": 1043},
    "sst2": {"train": 67349, "validation": 872, "test": 1821},
    "mrpc": {"train": 3668, "validation": 408, "test": 1725},
    "stsb": {"train": 5749, "validation": 1500, "test": 1379},
    "wnli": {"train": 634, "validation": 71},
    "qqp": {"validation": 10_000, "test": 10_000},
    "mnli": {"validation": 1000, "validation_mismatched": 1000},
}


@pytest.mark.parametrize("task", SHARED)
def test_real_tasks_are_read_whole(shared_data: Path, task: str) -> None:
    data = load(task, shared_data)
    assert {name: len(split) for name, split in data.splits.items()} == SHARED[task]
    assert data.set_aside == ()
    for split in data.splits.values():
        assert len(set(map(len, split.texts))) == 1
        if task == "stsb":
            assert split.labels.min() == 0.0
            assert split.labels.max() == 5.0
        else:
            assert np.unique(split.labels).tolist() == list(range(len(data.label_names)))


def test_real_labels_mean_what_their_names_say(shared_data: Path) -> None:
    """Texts whose label a reader can tell, so that a swapped order of names would be seen."""

    def label_of(task: str, start: str) -> str:
        data = load(task, shared_data)
        split = data.split("validation")
        row = next(i for i, texts in enumerate(split.texts) if texts[0].startswith(start))
        return data.label_names[split.labels[row]]

    assert label_of("sst2", "one long string of cliches") == "negative"
    assert label_of("mnli", "In Temple Bar") == "entailment"
    assert label_of("cola", "The sailors rode the breeze") == "acceptable"
    assert label_of("mrpc", "Magnarelli said") == "not_equivalent"
    assert label_of("wnli", "The drain is clogged") == "not_entailment"


def test_a_split_that_the_source_lacks_fails_only_when_asked_for(shared_data: Path) -> None:
    data = load("mnli", shared_data)
    with pytest.raises(DataError, match=r"no split 'train'.*validation \(1000 rows\)"):
        data.split("train")


def test_a_task_that_is_not_there_names_those_that_are(shared_data: Path) -> None:
    with pytest.raises(DataError, match=r"'qnli' needs the folder.*holds cola, mnli, mrpc"):
        load("qnli", shared_data)


def test_an_unreadable_first_row_does_not_hide_the_columns(tmp_path: Path) -> None:
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": 2.5} for i in range(200)]
    write(tmp_path / "stsb" / "train.jsonl.gz", rows)
    file = tmp_path / "stsb" / "train.jsonl.gz"
    file.write_bytes(gzip.compress(b"no json\n" + gzip.decompress(file.read_bytes())))
    data = load("stsb", tmp_path)
    assert len(data.split("train")) == 200
    assert data.set_aside_of("train") == {"not JSON": 1}


def test_columns_of_another_task_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "rte" / "train.jsonl.gz", [{"sentence": "a", "label": 0}])
    with pytest.raises(
        DataError, match=r"'rte' has the columns sentence, label; needed are sentence1"
    ):
        load("rte", tmp_path)


def test_offline_the_hub_error_names_the_way_out() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match=r"'rte' could not be loaded from the hub.*set path = "):
        load("rte", None)


def test_the_hubs_form_gives_the_same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real `datasets` tables in the layout of nyu-mll/glue; only the download is left out."""
    datasets = pytest.importorskip("datasets")
    rows = [
        {"premise": f"p {i}", "hypothesis": f"h {i}", "label": i % 3, "idx": i} for i in range(6)
    ]
    hidden = [{**row, "label": -1} for row in rows]
    parts = {"train": rows, "validation_matched": rows[:3], "validation_mismatched": rows[3:]}
    parts |= {"test_matched": hidden, "test_mismatched": hidden}
    found = datasets.DatasetDict({n: datasets.Dataset.from_list(r) for n, r in parts.items()})
    asked: list[Any] = []

    def load_dataset(*names: str, **settings: Any) -> Any:
        asked.append((names, settings))
        return found

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load("mnli", None, revision="abc")
    assert asked == [(("nyu-mll/glue", "mnli"), {"revision": "abc"})]
    assert set(data.splits) == set(OUR_SPLITS.values())
    assert data.split("train").texts[4] == ("p 4", "h 4")
    assert data.split("train").labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.split("validation").labels.tolist() == [0, 1, 2]
    assert data.split("test").labels.tolist() == [-1] * 6


def test_hidden_scores_of_the_hub_are_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"sentence1": "a", "sentence2": "b", "label": -1.0}]
    found = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **settings: found)
    assert np.isnan(load("stsb", None).split("test").labels).all()
