"""Row 22: label orders that differ are reconciled by names, or refused before any compute."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import classifiers
from attar.errors import ModelError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.run import evaluate
from attar.tasks.task import Task


def step(*models: str) -> EvaluateStep:
    return EvaluateStep(models=models, data="colours", speed=None, memory=False, bootstrap=100)


def test_a_model_that_numbers_its_classes_otherwise_is_judged_by_their_names(
    tmp_path: Path,
) -> None:
    data = classifiers.write_rows(tmp_path / "data")
    models = {
        "same": classifiers.write_classifier(tmp_path / "same"),
        "other": classifiers.write_classifier(tmp_path / "other", ("blue", "red", "green")),
    }
    context = classifiers.context_for(tmp_path, data, models)
    metrics = evaluate(step("same", "other"), context)
    table = pq.read_table(context.folder / "predictions.parquet")
    assert len(set(table["same.prediction"].to_pylist())) > 1
    assert table["same.prediction"] == table["other.prediction"]
    (difference,) = metrics["differences"]
    assert (difference["value"], difference["ci95"]) == (0.0, [0.0, 0.0])
    assert difference["within_noise"] is True


def test_classes_with_other_names_are_refused_before_any_model_is_opened(tmp_path: Path) -> None:
    """The second model has no weights at all: opening it, or the first, would say so."""
    data = classifiers.write_rows(tmp_path / "data")
    models = {"red": tmp_path / "red", "sad": tmp_path / "sad"}
    for name, folder in models.items():
        folder.mkdir()
        classes = classifiers.COLOURS if name == "red" else ("sad", "glad", "mad")
        Task(
            objective="classification",
            label_names=classes,
            max_length=32,
            input_names=classifiers.INPUTS,
        ).write(folder)
    context = classifiers.context_for(tmp_path, data, models)
    with pytest.raises(ModelError, match=r"model 'sad'.*cannot be matched by name.*'glad'.*'blue'"):
        evaluate(step("red", "sad"), context)
    assert list(context.folder.iterdir()) == []
