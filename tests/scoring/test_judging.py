"""A judge scores as a loop over single texts would, and refuses answers that mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import simulated
from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.errors import NonFiniteError
from attar.models.load import load_model
from attar.progress import Progress
from attar.quantization.calibration.calibrate import to_tensors
from attar.scoring.judging import Judge
from attar.step import StepContext


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
    context = StepContext("s", tmp_path, tmp_path, {}, {}, tmp_path, Progress(quiet=True))
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
