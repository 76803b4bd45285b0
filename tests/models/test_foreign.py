"""A classifier that attar did not train: what transformers wrote is enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import deployments as made
import tiny
from attar.models.foreign import task_of
from attar.scoring.forms import open_form

NAMES = {0: "bad", 1: "good"}


def save(folder: Path, **changes: object) -> Path:
    """A folder written by transformers' `save_pretrained`, and a tokenizer; nothing of ours."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tiny.write_tiny_bert(folder)
    config = AutoConfig.from_pretrained(folder, **changes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def test_its_config_says_what_it_is_for(tmp_path: Path) -> None:
    task = task_of(save(tmp_path, id2label=NAMES))
    assert (task.objective, task.label_names, task.metrics) == (
        "classification",
        ("bad", "good"),
        (),
    )
    assert task.input_names == ("input_ids", "attention_mask", "token_type_ids")
    assert task.max_length == 64  # its positions


def test_one_label_is_a_score_and_the_tokenizer_limits_the_length(tmp_path: Path) -> None:
    save(tmp_path, num_labels=1)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 24}))
    task = task_of(tmp_path)
    assert (task.objective, task.max_length) == ("regression", 24)


@pytest.mark.parametrize("said", [None, int(1e30), 1e30, 0, -1, True, "512"])
def test_a_tokenizer_without_a_limit_lets_a_text_fill_the_positions(
    tmp_path: Path, said: object
) -> None:
    save(tmp_path, max_position_embeddings=1024)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": said}))
    assert task_of(tmp_path).max_length == 1024


@pytest.mark.parametrize(("said", "read"), [(1000, 1000), (1024, 1024), (4096, 1024)])
def test_the_tokenizer_limits_the_length_up_to_the_positions(
    tmp_path: Path, said: int, read: int
) -> None:
    save(tmp_path, max_position_embeddings=1024)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": said}))
    assert task_of(tmp_path).max_length == read


def test_several_labels_at_once_are_known_by_the_problem_type(tmp_path: Path) -> None:
    save(tmp_path, id2label=NAMES, problem_type="multi_label_classification")
    assert task_of(tmp_path).objective == "multi_label"


def test_it_quantizes_answers_and_exports(tmp_path: Path) -> None:
    folder = save(tmp_path / "theirs", id2label=NAMES)
    form = open_form(folder)
    assert (form.form, form.task.label_names) == ("float", ("bad", "good"))
    int8 = made.quantized(tmp_path, folder)
    assert task_of(int8 / "model") == form.task
    for name, source in (("of_int8", int8), ("of_float", folder)):
        deployed, metrics = made.exported(tmp_path, name, source, "openvino")
        # its config does not say how many texts it reads; the data of the export does
        assert task_of(deployed) == form.task.model_copy(update={"num_texts": 1})
        assert metrics["num_params"] == form.num_params
