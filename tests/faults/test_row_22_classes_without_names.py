"""Row 22: a model that calls its classes LABEL_0, LABEL_1 … is used only where their order is
certain, and the advice of the refusal works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from attar.data.config import FilesData, GlueData
from attar.data.load import load_data
from attar.errors import ModelError
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


def test_a_teacher_without_names_is_refused_and_both_remedies_of_the_message_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = prepare(tmp_path / "named")
    write_teacher(named / "teacher", NAMES)
    expected = train(named, label_names=NAMES)

    place = prepare(tmp_path / "unnamed")
    write_teacher(place / "teacher", ("LABEL_0", "LABEL_1"))
    with pytest.raises(ModelError) as refused:
        train(place)
    said = str(refused.value)
    assert "nothing says which is which" in said
    assert "set label_names to the classes in the order of LABEL_0 to LABEL_1" in said
    assert f"id2label of {place / 'teacher' / 'config.json'}" in said
    assert "new_head" not in said  # a student's setting

    assert train(place, label_names=NAMES) == expected
    assert "'LABEL_0' is taken for 'good', 'LABEL_1' is taken for 'bad'" in capsys.readouterr().err
    again = prepare(tmp_path / "again")
    write_teacher(again / "teacher", ("LABEL_0", "LABEL_1"))
    name_classes(again / "teacher", NAMES)
    assert train(again, label_names=NAMES) == expected


def test_a_student_goes_on_from_such_a_head_only_where_the_order_is_given(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    name_classes(place / "bert", ("LABEL_0", "LABEL_1"))
    with pytest.raises(ModelError, match=r"nothing says which is which.*new_head = true"):
        run_training(place, max_steps=1)
    run_training(place, max_steps=1, model={"from": "bert", "new_head": True})


def columns(folder: Path, data: Any, recipe_folder: Path) -> list[int]:
    found = load_data(data, recipe_folder)
    return output_columns("m", task_of(folder), found, lambda _: None).tolist()


def test_a_model_without_names_is_judged_only_where_the_order_is_given(tmp_path: Path) -> None:
    model = tiny.write_tiny_bert(tmp_path / "model")
    name_classes(model, ("LABEL_0", "LABEL_1"))
    prepare(tmp_path)
    films = FilesData(path="films", text="text")
    with pytest.raises(ModelError, match="set label_names to the classes in the order of LABEL_0"):
        columns(model, films, tmp_path)
    given = FilesData(path="films", text="text", label_names=("good", "bad"))
    assert columns(model, given, tmp_path) == [0, 1]
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "train.jsonl").write_text('{"sentence": "good", "label": 1}\n')
    assert columns(model, GlueData(task="sst2", path="."), tmp_path) == [0, 1]


def test_classes_that_are_numbers_name_themselves(tmp_path: Path) -> None:
    model = tiny.write_tiny_bert(tmp_path / "model")
    name_classes(model, ("LABEL_0", "LABEL_1"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.csv").write_text("text,label\n" + "a,1.0\nb,0.0\n" * 20)
    assert columns(model, FilesData(path="d"), tmp_path) == [0, 1]
