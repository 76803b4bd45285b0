"""The sidecar that says what a model is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from attar.errors import ArtifactError, DataError
from attar.models.foreign import task_of
from attar.models.sources.references import find_model_folder
from attar.tasks.task import Task

CLASSES = Task(
    objective="classification",
    label_names=("no", "yes"),
    max_length=32,
    input_names=("input_ids", "attention_mask"),
    metrics=("accuracy",),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    CLASSES.write(tmp_path)
    assert Task.read(tmp_path) == CLASSES


def test_a_score_is_one_number() -> None:
    score = Task(objective="regression", max_length=8, input_names=("input_ids",))
    assert (score.num_labels, CLASSES.num_labels) == (1, 2)


@pytest.mark.parametrize(
    ("objective", "names", "words"),
    [
        ("classification", ("only",), "at least 2"),
        ("classification", ("a", "a"), "distinct"),
        ("regression", ("a", "b"), "at most 1"),
    ],
)
def test_labels_must_fit_the_objective(objective: str, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Task.model_validate(
            {"objective": objective, "label_names": names, "max_length": 8, "input_names": ("x",)}
        )


def test_a_folder_without_a_task_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with pytest.raises(ArtifactError, match=r"no task\.json.*BertModel has no classification head"):
        task_of(tmp_path)
    (tmp_path / "task.json").write_text('{"objective": "cooking"}')
    with pytest.raises(ArtifactError, match=r"objective.*mistakes\)"):
        Task.read(tmp_path)
    (tmp_path / "task.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        Task.read(tmp_path)


def test_a_model_lies_in_the_folder_or_in_its_model_folder(tmp_path: Path) -> None:
    assert find_model_folder(tmp_path) == tmp_path
    (tmp_path / "model").mkdir()
    assert find_model_folder(tmp_path) == tmp_path / "model"


def test_a_row_with_too_few_texts_for_the_template_is_refused() -> None:
    task = CLASSES.model_copy(update={"template": "{0} and {1}"})
    with pytest.raises(DataError, match=r"reads rows as '\{0\} and \{1\}', a row has \{0\};"):
        task.prompt(("one",))
