"""EOFD with `count_padding`: batches as wide as max_length, as TinyBERT pads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attar.data.tables import Split
from attar.data.tokenize import TextEncoder
from attar.losses.config import Eofd
from attar.tasks.table import KINDS
from attar.tasks.task import Task
from attar.training.config import TrainStep
from attar.training.objectives.labelled import LabelledTexts
from attar.training.objectives.preparing import of_one_width
from attar.training.objectives.text_pairs import TextPairs
from training_runs import prepare, read_history, run_training

NAMES = ("input_ids", "attention_mask")


def without_dropout(folder: Path) -> Path:
    """Its masks would depend on the shape of a micro-batch."""
    prepare(folder)
    config = json.loads((folder / "bert" / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "bert" / "config.json").write_text(json.dumps(config))
    return folder


def test_the_loss_is_the_same_however_a_batch_is_cut_and_not_that_without_padding(
    tmp_path: Path,
) -> None:
    curves: dict[str, list[float]] = {}
    for name, counted, size in (("whole", True, None), ("cut", True, 2), ("real", False, None)):
        settings: dict[str, Any] = {
            "model": {"from": "bert", "keep_blocks": [1]},
            "teacher": "bert",
            "losses": [{"kind": "eofd", "count_padding": counted}],
        }
        folder = without_dropout(tmp_path / name)
        run_training(folder, **settings, max_steps=3, micro_batch_size=size)
        curves[name] = [line["loss"] for line in read_history(folder) if "loss" in line]
    assert curves["cut"] == pytest.approx(curves["whole"], rel=1e-5)
    assert curves["real"] != pytest.approx(curves["whole"], rel=1e-3)


def test_training_rows_are_padded_to_the_limits_of_the_task(tmp_path: Path) -> None:
    prepare(tmp_path)
    encoder = TextEncoder.from_folder(tmp_path / "bert", 24, NAMES)
    split = Split((("good film",), ("a bad film",)), np.array([1, 0]))
    labels = ("bad", "good")
    task = Task(objective="classification", label_names=labels, max_length=24, input_names=NAMES)
    rows, cpu = np.array([0]), torch.device("cpu")
    labelled = of_one_width(LabelledTexts.of(split, encoder), task)
    inputs, targets = labelled.batch(rows, cpu)
    assert inputs["input_ids"].shape == targets.masks["encoder"].shape == (1, 24)
    assert int(inputs["attention_mask"].sum()) == int(labelled.lengths[0]) < 24
    words = task.model_copy(update={"label_words": labels, "max_target_length": 9})
    pairs = of_one_width(TextPairs.of(split, words, encoder, encoder, 0), words)
    inputs, targets = pairs.batch(rows, cpu)
    assert inputs["input_ids"].shape == (1, 24)
    assert targets.masks["decoder"].shape == (1, 9)


def test_rows_that_are_no_texts_with_an_answer_are_refused() -> None:
    padded = [Eofd(count_padding=True)]
    step = TrainStep(model="student", data="d", teacher="teacher", losses=padded)
    for objective in ("sentence_embedding", "question_answering"):
        said = step.misfit(KINDS[objective], "d")
        assert said is not None
        assert said.startswith("count_padding is for classes, numbers and written texts")
    assert step.misfit(KINDS["regression"], "d") is None
