"""A text for a text, and classes by their words, in encoder-decoders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attar.data.config import FilesData
from attar.data.tables import Split
from attar.data.tokenize import TextEncoder
from attar.errors import DataError, ModelError, UsageError
from attar.losses.targets import UNLABELLED
from attar.models.load import load_model
from attar.tasks.task import Task
from attar.training.objectives.examples import Validation
from attar.training.objectives.next_tokens import nats_of_rows
from attar.training.objectives.text_pairs import TextPairs
from language_runs import (
    PAIRS,
    WORDED,
    model_config,
    write_pairs,
    write_random,
    write_tokenizer,
)
from training_runs import read_history, run_training, write_films

INPUTS = ("input_ids", "attention_mask")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "pairs")
    write_films(tmp_path / "films")
    return tmp_path


def task(**changes: object) -> Task:
    fields = {"objective": "classification", "label_names": ("bad", "good"), "max_length": 16}
    return Task.model_validate({**fields, "input_names": INPUTS, **changes})


def test_the_decoder_reads_the_target_moved_by_one_behind_its_start(place: Path) -> None:
    write_tokenizer(place / "t5")
    encoder = TextEncoder.from_folder(place / "t5", 16, INPUTS)
    split = Split((("open the file",), ("close",)), np.array([-1, -1]), ("read it", "a"))
    pairs = TextPairs.of(split, task(), encoder, encoder, start=9)
    inputs, targets = pairs.batch(np.array([0, 1]), torch.device("cpu"))
    fed, labels = inputs["decoder_input_ids"], targets.labels
    assert fed[:, 0].tolist() == [9, 9]
    assert torch.equal(fed[0, 1:], labels[0, :-1])
    assert (labels == UNLABELLED).sum() == 1 and labels[1, -1] == UNLABELLED
    counts = pairs.counts(np.array([0, 1]))
    assert counts["labelled"] == int((labels != UNLABELLED).sum()) == counts["decoder"]
    assert counts["encoder"] == int(inputs["attention_mask"].sum())


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_model_learns_to_write_and_knows_its_task(place: Path, family: str) -> None:
    run_training(
        place,
        model=model_config(place / family, family),
        data_config=PAIRS.model_copy(update={"path": str(place / "pairs")}),
        max_steps=40,
        learning_rate=1e-2,
        max_target_length=8,
    )
    looks = [line["validation"] for line in read_history(place) if "validation" in line]
    assert looks[-1]["nll"] < 0.8 * looks[0]["nll"] or looks[-1]["nll"] < 1
    found = Task.read(place / "out" / "model")
    assert found.objective == "text_to_text" and found.max_target_length == 8


def test_classes_are_learned_as_words_and_told_by_likelihood(place: Path) -> None:
    metrics = run_training(
        place,
        model=model_config(place / "t5", "t5"),
        objective="text_to_text",
        template="film: {0}",
        label_words=["poor", "great film"],
        max_steps=60,
        learning_rate=1e-2,
        losses=[{"kind": "cross_entropy"}],
    )
    assert metrics["validation"]["accuracy"] > 0.7
    assert metrics["objective"] == "text_to_text", "as the step asked, whatever the data are for"
    found = Task.read(place / "out" / "model")
    assert found.label_words == ("poor", "great film") and found.prompt(("x",)) == "film: x"


def test_both_stacks_teach_a_student_of_label_words(place: Path) -> None:
    settings = {"objective": "text_to_text", "max_steps": 4, "label_words": ["bad", "good"]}
    run_training(place, model=model_config(place / "t5", "t5"), **settings)
    (place / "out").rename(place / "teacher")
    (place / "scratch").rename(place / "first")
    run_training(
        place,
        model={"from": "teacher/model", "keep_blocks": [0]},
        teacher="teacher/model",
        losses=[{"kind": "forward_kl"}, {"kind": "hidden_mse"}],
        **settings,
    )
    terms = [line["losses"] for line in read_history(place) if "losses" in line]
    assert len(terms) > 1
    assert all(term["hidden_mse"] > 0 for term in terms)


def test_what_cannot_be_is_refused(place: Path) -> None:
    t5 = model_config(place / "t5", "t5")
    with pytest.raises(ModelError, match="no decoder that reads an encoder's output"):
        gpt2 = model_config(place / "gpt2", "gpt2")
        run_training(place, model=gpt2, objective="text_to_text", label_words=["bad", "good"])
    write_tokenizer(place / "bert")
    with pytest.raises(ModelError, match="'bert' has no decoder that reads"):
        bert = model_config(place / "bert", "bert")
        run_training(place, model=bert, objective="text_to_text", label_words=["bad", "good"])
    with pytest.raises(UsageError, match=r"label_words must be distinct, one for each"):
        run_training(place, model=t5, objective="text_to_text", label_words=["a", "b", "c"])
    with pytest.raises(UsageError, match="name classes by words"):
        run_training(place, model=t5, template="film: {0}")
    with pytest.raises(UsageError, match="objective is 'causal_lm', but data 'films'"):
        run_training(place, model=t5, objective="causal_lm")
    write_tokenizer(place / "t5")
    encoder = TextEncoder.from_folder(place / "t5", 16, INPUTS)
    split = Split((("a",), ("b",)), np.array([0, UNLABELLED]))
    with pytest.raises(DataError, match=r"1 of 2 rows have no label.*keep_labels = true"):
        TextPairs.of(split, task(label_words=("a", "b")), encoder, encoder, start=0)


def test_running_text_has_one_column_and_no_classes() -> None:
    wrongs = {
        "causal_lm reads running text from one column": {"text": ["a", "b"]},
        "names 2 classes, but causal_lm has none": {"text": "a", "label_names": ["x", "y"]},
    }
    for words, wrong in wrongs.items():
        with pytest.raises(ValueError, match=words):
            FilesData.model_validate({"path": "p", "objective": "causal_lm", **wrong})


def test_a_source_is_read_once_for_all_classes(place: Path) -> None:
    """And the words' likelihoods are those of one target after the other."""
    words = ("poor", "great film", "great")
    named = {"label_names": ("a", "b", "c"), "label_words": words}
    folder = write_random(place / "t5", "t5", **WORDED | named)
    model = load_model(folder).model
    encoder = TextEncoder.from_folder(folder, 16, INPUTS)
    texts = tuple((text,) for text in ("a good film", "bad", "the film is not good at all"))
    split = Split(texts, np.array([0, 1, 2]))
    pairs = TextPairs.of(split, task(**named), encoder, encoder, start=0)
    one_by_one = [
        nats_of_rows(Validation(model, (), 2), replace(pairs, target_rows=np.full(3, word)))
        for word in range(3)
    ]
    reads: list[int] = []
    model.get_encoder().register_forward_hook(lambda *given: reads.append(1))
    found = pairs.validate(Validation(model, ("accuracy", "nll"), 2))
    assert len(reads) == 2  # batches
    assert found["accuracy"] == np.mean(np.argmin(one_by_one, axis=0) == split.labels)
    gold = sum(one_by_one[c][c] for c in range(3))
    assert found["nll"] == pytest.approx(gold / pairs.counts(np.arange(3))["labelled"], rel=1e-5)


def test_pairs_of_texts_are_read_together_for_a_text_too(place: Path) -> None:
    rows = [{"a": "open", "b": "file", "target": "read"}, {"a": "close", "b": "it", "target": "a"}]
    for split in ("train", "validation"):
        (place / "pairs" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows * 8)))
    settings = {"text": ("a", "b"), "path": str(place / "pairs"), "objective": "text_to_text"}
    data, model = FilesData.model_validate(settings), model_config(place / "t5", "t5")
    with pytest.raises(UsageError, match="has 2 texts; say how they are read together"):
        run_training(place, model=model, data_config=data, max_steps=1)
    run_training(place, model=model, data_config=data, max_steps=1, template="{1} of {0}")
    assert Task.read(place / "out" / "model").texts_read([("x", "y")]) == [("y of x",)]
