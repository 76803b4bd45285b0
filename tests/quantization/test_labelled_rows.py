"""Labelled rows are scored as a loop over single texts would score them, and refuse answers that
mean nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import deployments
import simulated
from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.errors import NonFiniteError
from attar.models.load import load_model
from attar.progress import Progress
from attar.quantization.calibration.calibrate import to_tensors
from attar.quantization.labelled_rows import LabelledRows
from attar.step import StepContext


class Answers(nn.Module):
    """A model that answers what it is given."""

    def forward(self, given: torch.Tensor) -> Any:
        return SimpleNamespace(logits=given)


@pytest.mark.parametrize(("kind", "metric"), [(np.int64, "accuracy"), (np.float32, "pearson")])
def test_answers_that_are_not_finite_are_no_score(
    tmp_path: Path, kind: type[np.generic], metric: str
) -> None:
    width = 2 if kind is np.int64 else 1
    logits = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])[:, -width:]
    labels = logits.argmax(1).numpy() if width == 2 else logits[:, 0].numpy()
    context = deployments.context_for(tmp_path, "int8", {})
    batches: Any = [{"given": logits[:2]}, {"given": logits[2:]}]
    rows = LabelledRows(batches, labels.astype(kind), metric, np.arange(width), context)
    model: Any = Answers()
    assert rows.score(model) == pytest.approx(1.0, abs=1e-6)
    logits[3] = torch.nan
    with pytest.raises(NonFiniteError, match=r"for 1 of 4 rows \(rows 3\)"):
        rows.score(model)


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
    rows = LabelledRows.of(
        split, data, loaded.task, loaded.folder, context, batch_size=5, asker="a test"
    )
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
    assert [len(batch["input_ids"]) for batch in rows.batches] == [5] * 9 + [3]
    assert rows.score(model) == pytest.approx(sum(right) / len(right))
