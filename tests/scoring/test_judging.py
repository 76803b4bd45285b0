"""A judge scores as a loop over single texts would, and refuses answers that mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import simulated
import tiny
from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.tables import Marks, Split, TextData
from attar.data.tokenize import Encoded, TextEncoder
from attar.errors import NonFiniteError
from attar.models.load import load_model
from attar.progress import Progress
from attar.quantization.calibration.calibrate import to_tensors
from attar.scoring.judging import READ, Judge
from attar.special_tokens import open_tokenizer
from attar.step import StepContext
from attar.tasks.task import Task


def test_answers_are_compared_by_the_names_of_classes_text_by_text(tmp_path: Path) -> None:
    """The data's classes are in another order than the model's, and batches in another order than
    the rows."""
    simulated.write_float_model(tmp_path / "float")
    simulated.write_texts(tmp_path / "texts")
    loaded = load_model(tmp_path / "float")
    assert loaded.task is not None
    model, names = loaded.model, simulated.LABELS
    data = load_data(FilesData(path=str(tmp_path / "texts")), tmp_path, name="texts")
    assert list(data.label_names) != list(names)
    context = context_in(tmp_path)
    split = data.split("train", labelled=True)
    judge = Judge.of_head("float", loaded.folder, loaded.task, split, data, context, 5)
    encoder = TextEncoder.from_folder(loaded.folder, 32, loaded.task.input_names)
    alone = [to_tensors(encoder.encode([text]).batch([0])) for text in split.texts]
    with torch.no_grad():
        logits = torch.cat([model(**batch).logits for batch in alone])
        model.classifier.bias.sub_(logits.mean(0))  # random weights prefer one class
        answers = [names[int(model(**batch).logits.argmax())] for batch in alone]
    lines = (tmp_path / "texts" / "train.jsonl").read_text().splitlines()
    wanted = [json.loads(line)["label"] for line in lines]
    right = [answer == label for answer, label in zip(answers, wanted, strict=True)]
    assert len(set(answers)) == 3
    found = judge.answers(model, "float")
    assert [data.label_names[i] for i in found.tolist()] == answers
    assert judge.value(model, "float") == pytest.approx(sum(right) / len(right))
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"model 'broken' gave NaN .* for 48 of 48 rows"):
        judge.value(model, "broken")


def context_in(folder: Path) -> StepContext:
    return StepContext("s", folder, folder, {}, {}, folder, Progress(quiet=True))


def test_sets_of_labels_are_judged_by_the_cuts_of_the_datas_own_labels(tmp_path: Path) -> None:
    """The model has the two labels in the other order."""
    scores = np.array([[0.4, -0.5], [0.5, -2.0]])
    one, starts = np.arange(2), np.arange(3)
    encoded = Encoded(one, 0 * one, starts, ("input_ids",), pad_id=0, is_cut=one > 9)
    labels, columns = np.array([[1, 0], [0, 1]], np.int8), np.array([1, 0])
    judge = Judge(
        *(encoded, labels, columns, "micro_f1", 2, context_in(tmp_path)),
        scorer_of=lambda _: lambda batch: scores[batch["input_ids"][:, 0]],
        cuts=[-1.0, 0.5],
    )
    assert judge.value(None, "m") == 1.0  # type: ignore[arg-type]


def test_answers_in_texts_are_judged_by_the_first_metric_of_their_kind(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    task = Task(
        objective="question_answering",
        max_length=24,
        input_names=("input_ids", "attention_mask"),
        no_answer_threshold=0.0,
    )
    texts = (("list", "a good film"), ("list", "bad film"))
    split = Split(texts, np.zeros(2), marks=(Marks(((2, 11, ""),)), None))
    encoded, labels, answers = READ["quote"](tmp_path, task, split)
    logits = np.zeros((len(encoded.ids), 2))
    good = open_tokenizer(tmp_path).token_to_id("good")
    logits[encoded.ids.tolist().index(good)] = 9
    logits[encoded.starts[1]] = 9
    assert answers(logits) == pytest.approx([2 / 3, 1])
    assert labels.tolist() == [0, 0]


def test_tags_are_judged_by_the_marks_that_are_right(tmp_path: Path) -> None:
    """Of words as the data has them, and of a row without marks."""
    tiny.write_tokenizer(tmp_path)
    names = ("O", "B-LOC")
    task = Task(
        objective="token_classification",
        label_names=names,
        max_length=24,
        input_names=("input_ids", "attention_mask"),
    )
    marks = (Marks(((0, 9, "LOC"), (10, 14, "LOC")), ((0, 9), (10, 14))), None)
    split = Split((("good film list",), ("bad",)), np.zeros(2), marks=marks)
    data = TextData("rows", task.objective, names, ("span_f1",), {"train": split})
    judge = Judge.of_head("m", tmp_path, task, split, data, context_in(tmp_path), 2)
    logits = np.zeros((len(judge.encoded.ids), 2))
    logits[:, 1] = [0, 9, *[-9] * (len(logits) - 2)]
    assert judge.of_tokens is not None
    assert judge.of_tokens(logits).tolist() == [[1, 1], [0, 0]]
    assert judge.labels.tolist() == [2, 0]
