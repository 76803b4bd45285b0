"""A model that answers with words is evaluated as a classifier: its logits are the words'
likelihoods, and it reads rows in its template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import language_runs
import simulated
import tiny
from attar.data.config import FilesData
from attar.evaluation.config import EvaluateStep, Speed
from attar.evaluation.run import evaluate
from attar.progress import Progress
from attar.step import StepContext
from attar.tasks.task import Task

WORDS = ("good film", "the", "movie")
NAMES = ("input_ids", "attention_mask")


def task_of(label_names: tuple[str, ...], words: tuple[str, ...]) -> Task:
    return Task(
        objective="classification",
        label_names=label_names,
        label_words=words,
        template="is it {0}",
        max_length=32,
        input_names=NAMES,
    )


def write_model(folder: Path, task: Task) -> Path:
    from transformers import AutoModelForSeq2SeqLM

    count = language_runs.write_tokenizer(folder)
    ids = {"vocab_size": count, "pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSeq2SeqLM.from_config(tiny.tiny_config("t5", **ids))
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    task.write(folder)
    return folder


def one_by_one(folder: Path, text: str, words: tuple[str, ...]) -> list[float]:
    """−nll of every target, by transformers alone."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    source = torch.tensor([tokenizer(f"is it {text}").input_ids])
    found = []
    for word in words:
        labels = torch.tensor([tokenizer(word).input_ids])
        with torch.no_grad():
            found.append(-float(model(input_ids=source, labels=labels).loss) * labels.shape[1])
    return found


def test_logits_are_likelihoods_of_words_matched_to_classes_by_name(tmp_path: Path) -> None:
    simulated.write_texts(tmp_path / "texts")
    order = tuple(reversed(simulated.LABELS))
    folder = write_model(tmp_path / "t5", task_of(order, WORDS))
    made = tmp_path / "made"
    made.mkdir()
    context = StepContext(
        name="scores",
        folder=made,
        scratch=tmp_path / "scratch",
        inputs={"t5": folder},
        data={"texts": FilesData(path=str(tmp_path / "texts"), label_names=simulated.LABELS)},
        recipe_folder=tmp_path,
        progress=Progress(quiet=True),
    )
    quick = Speed(batch_sizes=(2,), tokens=16, rounds=3, calls=1, threads=1)
    config = EvaluateStep(
        models=("t5",), data="texts", speed=quick, memory=False, bootstrap=100, batch_size=5
    )
    metrics = evaluate(config, context)
    logits = np.array(pq.read_table(made / "predictions.parquet")["t5.logits"].to_pylist())
    lines = (tmp_path / "texts" / "validation.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row, ours in zip(rows[:4], logits, strict=False):
        theirs = one_by_one(folder, row["text"], tuple(reversed(WORDS)))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    answers = [simulated.LABELS[i] for i in logits.argmax(axis=1)]
    right = [answer == row["label"] for answer, row in zip(answers, rows, strict=True)]
    found = metrics["models"]["t5"]
    assert found["accuracy"]["value"] == pytest.approx(np.mean(right))
    # what each part costs, and the two stages of writing
    parts = found["parts"]
    assert "decoder.cross_attention" in parts
    for figure in ("num_params", "flops"):
        assert sum(part[figure] for part in parts.values()) == found[figure]
    assert list(found["stages"]) == ["prefill", "decode_step"]
    for stage in found["stages"].values():
        assert (stage["batch"], stage["tokens"], stage["calls"]) == (2, 16, 3)
        assert 0 < stage["p50"] <= stage["p95"]


def test_a_classifier_with_a_head_reads_its_rows_as_they_are() -> None:
    plain = Task(
        objective="classification", label_names=("a", "b"), max_length=8, input_names=NAMES
    )
    assert plain.texts_read([("x", "y")]) == [("x", "y")]
    worded = task_of(("a", "b"), ("good", "bad"))
    assert worded.texts_read([("x", "y")]) == [("is it x",)]
