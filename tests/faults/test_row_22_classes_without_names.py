"""Row 22: a model that calls its classes LABEL_0, LABEL_1 … is matched by index, which is said, and
the advice for another order works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from attar.data.config import FilesData, GlueData
from attar.data.load import load_data
from attar.models.foreign import task_of
from attar.scoring.matching import output_columns
from training_runs import prepare, read_history, run_training

NAMES = ("good", "bad")
"""Not in the order of the alphabet, which a guess would take."""
LOSSES = [{"kind": "forward_kl"}]


def write_teacher(folder: Path, names: tuple[str, ...]) -> None:
    tiny.write_tiny_bert(folder, seed=1)
    name_classes(folder, names)


def name_classes(folder: Path, names: tuple[str, ...]) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    config["id2label"] = dict(enumerate(names))
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))


def train(place: Path, **data: Any) -> list[Any]:
    config = FilesData(path="films", text="text", **data)
    run_training(place, teacher="teacher", losses=LOSSES, max_steps=3, data_config=config)
    return read_history(place)


def test_a_teacher_without_names_teaches_by_index_and_the_advice_gives_another_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = prepare(tmp_path / "named")
    write_teacher(named / "teacher", NAMES)
    expected = train(named, label_names=NAMES)

    place = prepare(tmp_path / "unnamed")
    write_teacher(place / "teacher", ("LABEL_0", "LABEL_1"))
    train(place)
    said = capsys.readouterr().err
    assert "'LABEL_0' is taken for 'bad', 'LABEL_1' is taken for 'good', by index" in said
    assert "list the classes in its order in label_names of the data" in said
    other = prepare(tmp_path / "other")
    write_teacher(other / "teacher", ("LABEL_0", "LABEL_1"))
    assert train(other, label_names=NAMES) == expected
    assert "'LABEL_0' is taken for 'good', 'LABEL_1' is taken for 'bad'" in capsys.readouterr().err


def test_a_student_goes_on_from_such_a_head(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    name_classes(place / "bert", ("LABEL_0", "LABEL_1"))
    run_training(place, max_steps=1)


def columns(folder: Path, data: Any, recipe_folder: Path) -> list[int]:
    found = load_data(data, recipe_folder)
    return output_columns("m", task_of(folder), found, lambda _: None).tolist()


def test_a_model_without_names_is_judged_by_index(tmp_path: Path) -> None:
    model = tiny.write_tiny_bert(tmp_path / "model")
    name_classes(model, ("LABEL_1", "LABEL_0"))
    prepare(tmp_path)
    assert columns(model, FilesData(path="films", text="text"), tmp_path) == [1, 0]
    given = FilesData(path="films", text="text", label_names=("good", "bad"))
    assert columns(model, given, tmp_path) == [1, 0]
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "train.jsonl").write_text('{"sentence": "good", "label": 1}\n')
    assert columns(model, GlueData(task="sst2", path="."), tmp_path) == [1, 0]


def test_classes_that_are_numbers_name_themselves(tmp_path: Path) -> None:
    model = tiny.write_tiny_bert(tmp_path / "model")
    name_classes(model, ("LABEL_0", "LABEL_1"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.csv").write_text("text,label\n" + "a,1.0\nb,0.0\n" * 20)
    assert columns(model, FilesData(path="d"), tmp_path) == [0, 1]
