"""Row 22: a teacher that answers another question is refused before anything is computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from attar.errors import ModelError
from attar.tasks.task import Task
from caching import name_classes, prepare
from language_runs import model_config
from training_runs import read_history, run_training

KL = [{"kind": "forward_kl"}]
HIDDEN = [{"kind": "hidden_mse"}]
WORDS: dict[str, Any] = {"objective": "text_to_text", "label_words": ["bad", "good"]}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return prepare(tmp_path)


@pytest.fixture
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any forward pass of a model that reads tokens fails, and no text is tokenized."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a forward pass was made, or a text was read")

    monkeypatch.setattr(torch.nn.Embedding, "forward", never)
    monkeypatch.setattr("attar.data.tokenize.TextEncoder.encode", never)


def test_classes_spelled_otherwise_teach_the_same_and_it_is_said(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_training(place, teacher="teacher", losses=KL, max_steps=3)
    expected = read_history(place)
    name_classes(place / "teacher", ["Bad", " GOOD"])
    again = shutil.copytree(place / "films", place / "again" / "films").parent
    shutil.copytree(place / "bert", again / "bert")
    run_training(again, teacher="../teacher", losses=KL, max_steps=3)
    assert "'Bad' is taken for 'bad', ' GOOD' is taken for 'good'" in capsys.readouterr().err
    assert read_history(again) == expected


def test_the_order_of_mnli_is_told_by_names(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["entailment", "neutral", "contradiction"]
    for split in ("train", "validation"):
        rows = [{"text": f"not a good film {i}", "label": names[i % 3]} for i in range(12)]
        file = place / "films" / f"{split}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = tiny.write_tiny_bert(place / "mnli", num_labels=3, seed=1)
    student = {"config": json.loads((place / "bert" / "config.json").read_text())}
    student["config"].pop("architectures")
    student = {**student, "tokenizer": "bert"}
    order = [1, 2, 0]  # of the data's own: contradiction, entailment, neutral
    histories = []
    for names_of_head, head in (
        (sorted(names), [0, 1, 2]),
        ([sorted(names)[i] for i in order], order),
    ):
        weights = load_file(teacher / "model.safetensors")
        moved = {n: weights[n][head] for n in ("classifier.weight", "classifier.bias")}
        folder = shutil.copytree(teacher, place / f"head{len(histories)}")
        save_file(weights | moved, folder / "model.safetensors", metadata={"format": "pt"})
        name_classes(folder, names_of_head)
        for made in ("out", "scratch"):
            shutil.rmtree(place / made, ignore_errors=True)
        run_training(place, model=student, teacher=folder.name, losses=KL, max_steps=3)
        histories.append(read_history(place))
    assert histories[0] == histories[1]
    assert "reordered to contradiction, entailment, neutral" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_is_computed")
def test_names_that_would_be_a_guess_are_refused(place: Path) -> None:
    name_classes(place / "teacher", ["positive", "bad"])
    with pytest.raises(ModelError, match=r"has \['positive'\], only the data have \['good'\]"):
        run_training(place, teacher="teacher", losses=KL)


@pytest.mark.usefixtures("nothing_is_computed")
def test_a_teacher_of_scores_is_no_teacher_of_classes(place: Path) -> None:
    tiny.write_tiny_bert(place / "scorer", num_labels=1)
    with pytest.raises(ModelError, match=r"it is for regression, the student's: classification"):
        run_training(place, teacher="scorer", losses=KL)


def test_hidden_states_of_a_teacher_of_something_else_may_be_learned_from(place: Path) -> None:
    tiny.write_tiny_bert(place / "scorer", num_labels=1)
    name_classes(place / "teacher", ["sad", "happy"])
    for teacher in ("scorer", "teacher"):
        metrics = run_training(place, teacher=teacher, losses=HIDDEN, max_steps=1)
        assert metrics["steps"] == 1, "refused, or taken up from the run before"
        shutil.rmtree(place / "scratch", ignore_errors=True)
        shutil.rmtree(place / "out")


@pytest.mark.usefixtures("nothing_is_computed")
def test_a_teacher_without_positions_for_the_texts_is_refused(place: Path) -> None:
    config = json.loads((place / "bert" / "config.json").read_text())
    config |= {"max_position_embeddings": 128}
    config.pop("architectures")
    student = {"config": config, "tokenizer": "bert"}
    with pytest.raises(ModelError, match=r"64 positions, max_length is 65"):
        run_training(place, model=student, teacher="teacher", losses=KL, max_length=65)


@pytest.fixture
def worded(place: Path) -> Path:
    """A T5 that was taught to answer films in words."""
    run_training(place, model=model_config(place / "t5", "t5"), max_steps=1, **WORDS)
    (place / "out").rename(place / "made")
    shutil.rmtree(place / "scratch", ignore_errors=True)
    return place


@pytest.mark.usefixtures("worded")
def test_a_teacher_of_other_words_or_another_template_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a text was read")

    monkeypatch.setattr("attar.data.tokenize.TextEncoder.encode", never)
    student = {"from": "made/model", "keep_blocks": [0]}
    with pytest.raises(ModelError, match=r"its template is '\{0\}', the student's: 'film: \{0\}'"):
        run_training(
            place, model=student, teacher="made/model", losses=KL, template="film: {0}", **WORDS
        )
    other = {**WORDS, "label_words": ["poor", "great"]}
    with pytest.raises(ModelError, match=r"label words are \['bad', 'good'\].*\['poor', 'great'\]"):
        run_training(place, model=student, teacher="made/model", losses=KL, **other)
    with pytest.raises(ModelError, match=r"classification by words, the student's: classification"):
        run_training(place, model="bert", teacher="made/model", losses=KL)


def test_columns_of_a_wider_teacher_that_no_token_has_are_left_out_and_it_is_said(
    worded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """T5's own case: 32,128 columns for 32,100 tokens."""
    student = {"from": "made/model", "keep_blocks": [0, 1]}
    run_training(worded, model=student, teacher="made/model", losses=KL, max_steps=2, **WORDS)
    expected = read_history(worded)
    for made in ("out", "scratch"):
        shutil.rmtree(worded / made)
    widen(worded / "made" / "model", columns=128)
    student["from"] = "narrow/model"
    run_training(worded, model=student, teacher="made/model", losses=KL, max_steps=2, **WORDS)
    tokens = json.loads((worded / "narrow/model/config.json").read_text())["vocab_size"]
    assert f"says of the last {128 - tokens} ids is left out" in capsys.readouterr().err
    assert read_history(worded) == expected


def test_a_student_with_more_columns_than_its_teacher_is_refused(
    worded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = shutil.copytree(worded / "made", worded / "wide")
    widen(wide / "model", columns=128)
    monkeypatch.setattr(
        "attar.data.tokenize.TextEncoder.encode", lambda *_: pytest.fail("a text was read")
    )
    with pytest.raises(ModelError, match=r"has 128 columns, .* vocab_size = \d+"):
        run_training(worded, model="wide/model", teacher="made/model", losses=KL, **WORDS)


def widen(model: Path, columns: int) -> None:
    """Pad the embeddings of a T5, as its makers do; a narrow copy stays beside it."""
    if not (model.parent.parent / "narrow").exists():
        shutil.copytree(model.parent, model.parent.parent / "narrow")
    weights = load_file(model / "model.safetensors")
    for name in ("shared.weight", "lm_head.weight"):
        if name in weights:
            extra = torch.full((columns - len(weights[name]), weights[name].shape[1]), 0.1)
            weights[name] = torch.cat([weights[name], extra])
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text()) | {"vocab_size": columns}
    (model / "config.json").write_text(json.dumps(config))
    assert Task.read(model).label_words
