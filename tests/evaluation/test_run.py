"""The step as a whole on real files: tiny random models, texts in JSON lines, every row."""

from __future__ import annotations

import io
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

import classifiers
import tiny
from attar.data.config import GlueData
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.errors import NonFiniteError, StoppedError
from attar.evaluation.config import EvaluateStep, Speed
from attar.evaluation.memory import PeakMemory, measure_memory
from attar.evaluation.run import evaluate
from attar.progress import Progress
from attar.tasks.task import Task

QUICK = Speed(tokens=16, rounds=3, calls=1, threads=1)
BATCHED = 1e-4
"""Relative to logits of size 10: padding and batching change the order of float32 sums."""


def step(*models: str, **settings) -> EvaluateStep:
    settings = {"speed": None, "memory": False, "bootstrap": 200} | settings
    return EvaluateStep(models=models, data="colours", **settings)


def logits_one_by_one(folder: Path, data) -> np.ndarray:
    """Without batches, padding or attar: the reference."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoder = TextEncoder.from_folder(folder, 32, classifiers.INPUTS)
    encoded = encoder.encode(data.splits["validation"].texts)
    rows = []
    with torch.no_grad():
        for i in range(len(encoded)):
            batch = {k: torch.from_numpy(v) for k, v in encoded.batch([i]).items()}
            rows.append(model(**batch).logits[0].numpy())
    return np.stack(rows)


def test_every_figure_and_every_row_is_that_of_the_model_run_one_text_at_a_time(
    tmp_path: Path,
) -> None:
    config = classifiers.write_rows(tmp_path / "data")
    folders = {n: classifiers.write_classifier(tmp_path / n, seed=i) for i, n in enumerate("ab")}
    context = classifiers.context_for(tmp_path, config, folders)
    metrics = evaluate(step("a", "b", batch_size=7, speed=QUICK), context)
    json.dumps(metrics, allow_nan=False)

    data = load_data(config, tmp_path, name="colours")
    labels = data.splits["validation"].labels
    table = pq.read_table(context.folder / "predictions.parquet")
    assert table["row"].to_pylist() == list(range(60))
    assert table["label"].to_pylist() == labels.tolist()
    assert json.loads(table.schema.metadata[b"label_names"]) == list(classifiers.COLOURS)
    for name, folder in folders.items():
        theirs = logits_one_by_one(folder, data)
        ours = np.array(table[f"{name}.logits"].to_pylist())
        np.testing.assert_allclose(ours, theirs, atol=BATCHED * np.abs(theirs).max())
        assert table[f"{name}.prediction"].to_pylist() == theirs.argmax(axis=1).tolist()
        entry = metrics["models"][name]
        assert entry["accuracy"]["value"] == pytest.approx((theirs.argmax(axis=1) == labels).mean())
        assert entry["accuracy"]["n"] == 60
        assert (entry["form"], entry["num_params"] > 0, entry["flops"] > 0) == ("float", True, True)
        weights = (folder / "model.safetensors").stat().st_size / 2**20
        assert entry["size_mib"] == pytest.approx(weights)
        assert entry["latency_ms"] == entry["latency"][0]
        told = [(x["batch"], x["tokens"], x["threads"]) for x in entry["latency"]]
        assert told == [(1, 16, 1), (8, 16, 1)]
    assert len({tuple(table[f"{n}.prediction"].to_pylist()) for n in folders}) == 2
    assert [(d["model"], d["against"]) for d in metrics["differences"]] == [("b", "a")]
    assert metrics["machine"]["threads"] == 1
    labels = table["label"].to_pylist()
    assert metrics["data"] == {
        "name": "colours",
        "split": "validation",
        "rows": 60,
        "label_names": list(classifiers.COLOURS),
        "metrics": ["accuracy"],
        "chance": {"accuracy": max(map(labels.count, labels)) / 60},
        "set_aside": {},
    }


def test_classes_spelled_otherwise_are_judged_in_their_own_order(tmp_path: Path) -> None:
    config = classifiers.write_rows(tmp_path / "data")
    names = tuple(reversed(classifiers.COLOURS))
    folders = {n: classifiers.write_classifier(tmp_path / n, names) for n in ("alike", "louder")}
    file = folders["louder"] / "task.json"
    task = json.loads(file.read_text())
    file.write_text(json.dumps(task | {"label_names": [name.upper() for name in names]}))
    stream = io.StringIO()
    context = classifiers.context_for(tmp_path, config, folders, progress=Progress(stream))
    found = evaluate(step("alike", "louder"), context)["models"]
    assert found["louder"]["accuracy"] == found["alike"]["accuracy"]
    assert "model 'louder', data 'colours': of its classes 'RED' is taken for" in stream.getvalue()


def test_the_second_validation_set_of_mnli_is_measured_by_its_own_rows(tmp_path: Path) -> None:
    names = ("entailment", "neutral", "contradiction")
    folder = tmp_path / "glue" / "mnli"
    folder.mkdir(parents=True)
    sizes = {"train": 8, "validation_matched": 8, "validation_mismatched": 5}
    for split, rows in sizes.items():
        made = [{"premise": f"a {i}", "hypothesis": "the", "label": i % 3} for i in range(rows)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    model = classifiers.write_classifier(tmp_path / "model")
    for file, named in (
        ("task.json", {"label_names": names}),
        ("config.json", {"id2label": dict(enumerate(names)), "label2id": None}),
    ):
        plain = json.loads((model / file).read_text())
        (model / file).write_text(json.dumps(plain | named))
    found = {}
    for split in ("validation", "validation_mismatched"):
        (tmp_path / split).mkdir()
        data: Any = GlueData(source="glue", task="mnli", path=str(tmp_path / "glue"))
        context = classifiers.context_for(tmp_path / split, data, {"model": model})
        found[split] = evaluate(step("model", split=split), context)
    assert {split: each["data"]["split"] for split, each in found.items()} == {s: s for s in found}
    rows = [each["models"]["model"]["accuracy"]["n"] for each in found.values()]
    assert rows == [each["data"]["rows"] for each in found.values()] == [8, 5]


def test_the_same_seed_gives_the_same_figures_and_another_other_intervals(tmp_path: Path) -> None:
    config = classifiers.write_rows(tmp_path / "data")
    folders = {"a": classifiers.write_classifier(tmp_path / "a")}
    found = []
    for i, seed in enumerate([3, 3, 4]):
        (tmp_path / str(i)).mkdir()
        context = classifiers.context_for(tmp_path / str(i), config, folders)
        found.append(evaluate(step("a", seed=seed), context)["models"]["a"]["accuracy"])
    assert found[0] == found[1]
    assert found[0]["value"] == found[2]["value"]
    assert found[0]["ci95"] != found[2]["ci95"]


def test_rows_that_a_model_does_not_read_to_their_end_are_counted_and_said(tmp_path: Path) -> None:
    config = classifiers.write_rows(tmp_path / "data")
    names = ("short", "as_short", "long")
    folders = {name: classifiers.write_classifier(tmp_path / name) for name in names}
    for name in ("short", "as_short"):
        task = Task.read(folders[name])
        task.model_copy(update={"max_length": 10}).write(folders[name])
    tokenizer = Tokenizer.from_file(str(folders["short"] / "tokenizer.json"))
    texts = load_data(config, tmp_path, name="colours").splits["validation"].texts
    count = sum(len(tokenizer.encode(text).ids) > 10 for (text,) in texts)
    stream = io.StringIO()
    context = classifiers.context_for(tmp_path, config, folders, progress=Progress(stream))
    evaluate(step(*names), context)
    told = [line for line in stream.getvalue().splitlines() if line.startswith("warning: ")]
    assert 0 < count < len(texts)
    assert len(told) == 1
    assert f"{count} of {len(texts)} rows have more than 10 tokens and are truncated" in told[0]


def test_a_regression_is_judged_by_its_correlations(tmp_path: Path) -> None:
    config = classifiers.write_rows(tmp_path / "data", regression=True)
    folders = {"a": classifiers.write_classifier(tmp_path / "a", ())}
    context = classifiers.context_for(tmp_path, config, folders)
    metrics = evaluate(step("a"), context)
    data = load_data(config, tmp_path, name="colours")
    answers = logits_one_by_one(folders["a"], data)[:, 0]
    labels = data.splits["validation"].labels
    entry = metrics["models"]["a"]
    assert set(data.metrics) <= set(entry)
    assert entry["pearson"]["value"] == pytest.approx(
        np.corrcoef(answers, labels)[0, 1], abs=BATCHED
    )
    table = pq.read_table(context.folder / "predictions.parquet")
    assert table["a.prediction"].to_pylist() == pytest.approx(answers.tolist(), abs=BATCHED)


def test_logits_that_are_not_finite_stop_the_step_with_model_and_rows(tmp_path: Path) -> None:
    config = classifiers.write_rows(tmp_path / "data")
    tiny.write_tokenizer(tmp_path / "words")
    vocab = json.loads((tmp_path / "words" / "tokenizer.json").read_text())["model"]["vocab"]
    folders = {
        "fine": classifiers.write_classifier(tmp_path / "fine"),
        "broken": classifiers.write_classifier(tmp_path / "broken", nan_for=vocab["socket"]),
    }
    texts = load_data(config, tmp_path, name="colours").splits["validation"].texts
    rows = [i for i, text in enumerate(texts) if "socket" in text[0].split()]
    assert 0 < len(rows) < 60
    context = classifiers.context_for(tmp_path, config, folders)
    with pytest.raises(NonFiniteError) as caught:
        evaluate(step("fine", "broken"), context)
    message = str(caught.value)
    assert "model 'broken'" in message
    assert f"for {len(rows)} of 60 rows" in message
    assert f"rows {', '.join(map(str, rows[:8]))}" in message


def test_a_request_to_stop_is_heard_between_two_batches(tmp_path: Path) -> None:
    config = classifiers.write_rows(tmp_path / "data")
    folders = {"a": classifiers.write_classifier(tmp_path / "a")}
    context = classifiers.context_for(tmp_path, config, folders, should_stop=lambda: True)
    with pytest.raises(StoppedError, match="step 'scores'"):
        evaluate(step("a"), context)


def test_a_measurement_that_fails_while_stopping_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request arrives during the last one, whose process dies of the same signal. (Not SIGINT:
    what a shell starts in the background ignores it.)"""
    config = classifiers.write_rows(tmp_path / "data")
    folders = {"a": classifiers.write_classifier(tmp_path / "a")}
    asked = threading.Event()
    context = classifiers.context_for(tmp_path, config, folders, should_stop=asked.is_set)
    killed = tmp_path / "interpreter"
    killed.write_text("#!/bin/sh\ncat > /dev/null; kill -TERM $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))

    def weigh(*given: Any, **named: Any) -> PeakMemory:
        asked.set()
        return measure_memory(*given, **named)

    monkeypatch.setattr("attar.evaluation.run.measure_memory", weigh)
    with pytest.raises(StoppedError, match="step 'scores'"):
        evaluate(step("a", memory=True), context)


def test_memory_that_cannot_be_measured_is_said_and_the_rest_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that cannot start: an interpreter that is not there would hide the reason, so its
    own exit is provoked by a thread count it refuses."""
    from attar.evaluation import memory

    monkeypatch.setattr(memory.sys, "executable", "/bin/false")
    config = classifiers.write_rows(tmp_path / "data")
    folders = {"a": classifiers.write_classifier(tmp_path / "a")}
    log = io.StringIO()
    progress = Progress(quiet=True, stream=log)
    context = classifiers.context_for(tmp_path, config, folders, progress=progress)
    entry = evaluate(step("a", memory=True), context)["models"]["a"]
    assert entry["peak_memory_mib"] is None
    assert entry["accuracy"]["n"] == 60
    assert "warning: no peak memory for a:" in log.getvalue()
