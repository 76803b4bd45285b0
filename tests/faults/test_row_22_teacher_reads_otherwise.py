"""Row 22: a teacher of other tokens or other classes is refused before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from attar.errors import ModelError
from training_runs import prepare, read_history, run_training


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = prepare(tmp_path)
    tiny.write_tiny_bert(folder / "teacher", seed=1)
    name_classes(folder / "teacher", ["bad", "good"])
    return folder


def name_classes(model: Path, names: list[str]) -> None:
    config = json.loads((model / "config.json").read_text())
    config["id2label"] = dict(enumerate(names))
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (model / "config.json").write_text(json.dumps(config))


def edit_tokenizer(model: Path, change) -> None:
    file = model / "tokenizer.json"
    tokenizer: dict[str, Any] = json.loads(file.read_text())
    change(tokenizer)
    file.write_text(json.dumps(tokenizer))


@pytest.fixture
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any forward pass of a model that reads tokens fails."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a forward pass was made")

    monkeypatch.setattr(torch.nn.Embedding, "forward", never)


@pytest.mark.usefixtures("nothing_is_computed")
def test_swapped_token_ids_are_refused_with_the_tokens(place: Path) -> None:
    def swap(tokenizer: dict[str, Any]) -> None:
        vocab = tokenizer["model"]["vocab"]
        vocab["good"], vocab["bad"] = vocab["bad"], vocab["good"]

    edit_tokenizer(place / "teacher", swap)
    with pytest.raises(ModelError, match=r"2 tokens have other ids \(.*'bad' is \d+ and \d+"):
        run_training(place, teacher="teacher")


@pytest.mark.usefixtures("nothing_is_computed")
def test_tokens_of_one_side_are_refused_with_their_number(place: Path) -> None:
    def rename(tokenizer: dict[str, Any]) -> None:
        vocab = tokenizer["model"]["vocab"]
        vocab["splendid"] = vocab.pop("great")

    edit_tokenizer(place / "teacher", rename)
    with pytest.raises(ModelError) as refused:
        run_training(place, teacher="teacher")
    assert "only the student has ('great')" in str(refused.value)
    assert "only the teacher has ('splendid')" in str(refused.value)


@pytest.mark.usefixtures("nothing_is_computed")
def test_another_treatment_of_case_is_refused(place: Path) -> None:
    def keep_case(tokenizer: dict[str, Any]) -> None:
        tokenizer["normalizer"]["lowercase"] = False

    edit_tokenizer(place / "teacher", keep_case)
    with pytest.raises(ModelError, match="the normalizer differs"):
        run_training(place, teacher="teacher")


def test_padding_and_truncation_settings_of_the_file_do_not_matter(place: Path) -> None:
    def pad(tokenizer: dict[str, Any]) -> None:
        tokenizer["truncation"] = {
            "direction": "Right",
            "max_length": 8,
            "strategy": "LongestFirst",
            "stride": 0,
        }

    edit_tokenizer(place / "teacher", pad)
    run_training(place, teacher="teacher", max_steps=1)


@pytest.mark.usefixtures("nothing_is_computed")
def test_a_teacher_of_other_classes_is_refused(place: Path) -> None:
    name_classes(place / "teacher", ["sad", "happy"])
    with pytest.raises(ModelError, match=r"\['sad', 'happy'\].*\['bad', 'good'\]"):
        run_training(place, teacher="teacher")


def test_a_teacher_with_the_classes_in_another_order_teaches_the_same(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = [{"kind": "forward_kl"}]
    run_training(place, teacher="teacher", losses=losses, max_steps=4)
    expected = read_history(place)

    weights = load_file(place / "teacher" / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name].flip(0).contiguous()
    save_file(weights, place / "teacher" / "model.safetensors", metadata={"format": "pt"})
    name_classes(place / "teacher", ["good", "bad"])
    again = prepare(place / "again")
    run_training(again, teacher="../teacher", losses=losses, max_steps=4)
    assert "reordered" in capsys.readouterr().err
    assert read_history(again) == expected
