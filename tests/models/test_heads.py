"""A head trained for some classes, asked for others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import tiny
from attar.errors import ModelError
from attar.models.load import load_model, save_model
from attar.tasks.task import Task

INPUTS = ("input_ids", "attention_mask")


def task(*names: str) -> Task:
    return Task(objective="classification", label_names=names, max_length=32, input_names=INPUTS)


def logits(loaded: object) -> torch.Tensor:
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        return loaded.model(input_ids=ids).logits[0]  # type: ignore[attr-defined]


@pytest.fixture(scope="module", params=["bert", "roberta", "bart", "gpt2"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three named classes."""
    folder = tmp_path_factory.mktemp("trained") / request.param
    names = ("bad", "fair", "good")
    model = tiny.tiny_model(
        request.param,
        id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
        **({"eos_token_id": 12} if request.param == "bart" else {}),
    )
    model.save_pretrained(folder)
    return folder


def test_the_same_classes_in_another_order_are_reordered_by_name(trained: Path) -> None:
    same = load_model(trained, task=task("bad", "fair", "good"))
    other = load_model(trained, task=task("good", "bad", "fair"))
    torch.testing.assert_close(logits(other), logits(same)[[2, 0, 1]])
    assert same.notes == ()
    assert "reordered to good, bad, fair" in other.notes[0]
    assert other.model.config.id2label == {0: "good", 1: "bad", 2: "fair"}


def test_other_classes_are_refused(trained: Path) -> None:
    with pytest.raises(
        ModelError, match=r"classifier of 3 classes, the task has 2: .*'bad', .*'no'"
    ):
        load_model(trained, task=task("no", "yes"))
    with pytest.raises(ModelError, match=r"model has \['good'\], only the data have \['great'\]"):
        load_model(trained, task=task("bad", "fair", "great"))
    score = Task(objective="regression", max_length=32, input_names=INPUTS)
    with pytest.raises(ModelError, match="classifier of 3 classes"):
        load_model(trained, task=score)


@pytest.fixture
def unnamed(tmp_path: Path, trained: Path) -> Path:
    """The classifier of three classes, which are called LABEL_0, LABEL_1 and LABEL_2."""
    folder = shutil.copytree(trained, tmp_path / "unnamed")
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"], config["label2id"]
    config["num_labels"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_classes_without_names_are_matched_by_index_and_that_is_said(unnamed: Path) -> None:
    loaded = load_model(unnamed, task=task("bad", "fair", "good"))
    assert "'LABEL_0' is taken for 'bad', 'LABEL_1' is taken for 'fair'" in loaded.notes[0]
    assert "list the classes in its order in label_names of the data" in loaded.notes[0]
    torch.testing.assert_close(logits(loaded), logits(load_model(unnamed)))


def test_classes_without_names_match_classes_that_are_numbers(unnamed: Path) -> None:
    loaded = load_model(unnamed, task=task("2", "0", "1"))
    assert "'LABEL_2' is taken for '2'" in loaded.notes[0]
    torch.testing.assert_close(logits(loaded), logits(load_model(unnamed))[[2, 0, 1]])


def test_a_head_that_labels_tokens_is_no_head_for_texts(tmp_path: Path, tiny_bert: Path) -> None:
    folder = tmp_path / "tagger"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["BertForTokenClassification"]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_model(folder, task=task("no", "yes"))
    assert "head of its BertForTokenClassification is discarded" in loaded.notes[0]
    old = load_model(tiny_bert).model.classifier.weight
    assert not torch.equal(loaded.model.classifier.weight, old)


def test_a_trained_folder_without_its_head_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    loaded = load_model(tiny.write_tiny_bert(tmp_path / "a"), task=task("bad", "good"))
    save_model(loaded, tmp_path / "b")
    file = tmp_path / "b" / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if not n.startswith("classifier")}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"classifier\.bias is missing; classifier\.weight is"):
        load_model(tmp_path / "b")


def test_a_new_head_is_drawn_for_other_classes_and_the_body_stays(trained: Path) -> None:
    first, again, other = (
        load_model(trained, task=task("no", "yes"), new_head=True, seed=seed) for seed in (0, 0, 1)
    )
    assert logits(first).shape == (2,)
    assert torch.equal(logits(first), logits(again))
    assert not torch.equal(logits(first), logits(other))
    assert "tensors of its head are discarded" in first.notes[0]
    old, new = load_model(trained).model.base_model, first.model.base_model
    for name, tensor in old.state_dict().items():
        assert torch.equal(tensor, new.state_dict()[name])


def test_a_new_head_is_drawn_for_the_same_classes_too(trained: Path) -> None:
    same = task("bad", "fair", "good")
    assert not torch.equal(
        logits(load_model(trained, task=same, new_head=True)),
        logits(load_model(trained, task=same)),
    )


def test_a_new_head_without_a_task_for_it_is_refused(tmp_path: Path) -> None:
    tiny.tiny_model("bert", bare=True).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no task is known; remove new_head"):
        load_model(tmp_path, new_head=True)


def test_classes_that_are_only_spelled_otherwise_are_taken_and_said(trained: Path) -> None:
    same = load_model(trained, task=task("bad", "fair", "good"))
    other = load_model(trained, task=task("Good", "bad", "FAIR"))
    torch.testing.assert_close(logits(other), logits(same)[[2, 0, 1]])
    assert "'good' is taken for 'Good', 'fair' is taken for 'FAIR'" in other.notes[0]
    assert "reordered to Good, bad, FAIR" in other.notes[1]
