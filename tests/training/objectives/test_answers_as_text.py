"""Classes and numbers as text: learned as words, told by likelihood and by what is written."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import corpora
from attar.data.config import FilesData, GlueData
from attar.data.corpus.config import LearnedTokenizer
from attar.data.corpus.learned_tokenizer import learn_tokenizer, write_learned
from attar.data.glue import TASKS, load_glue
from attar.data.prompts import fitting_template
from attar.errors import UsageError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.run import evaluate
from attar.tasks.task import Task, number_words
from attar.training.config import TrainStep
from attar.training.objectives.text_pairs import nearest_words
from attar.training.run import train

NUMBERS = FilesData(path="numbers", text="text", label="score", objective="regression")
CLASSES = FilesData(path="classes", text="text", label="label")
SMALL = {"d_model": 32, "d_ff": 48, "d_kv": 8, "dropout_rate": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts whose first word says their number and their class."""
    folder = tmp_path_factory.mktemp("answers")
    draw = random.Random(0)
    words = {"sea": (0.13, "wet"), "boat": (1.1, "wet"), "wind": (1.95, "dry")}
    for split, count in (("train", 60), ("validation", 24)):
        rows = [f"{draw.choice(list(words))} lay still {number}" for number in range(count)]
        for name, place, column in (("numbers", 0, "score"), ("classes", 1, "label")):
            lines = [{"text": row, column: words[row.split()[0]][place]} for row in rows]
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = LearnedTokenizer(train_on="texts", vocab_size=300, sentinels=4)
    write_learned(learn_tokenizer(corpora.texts(50), settings), folder / "words")
    return folder


def _trained(folder: Path, name: str, data: FilesData, **settings: Any) -> dict[str, Any]:
    step = TrainStep.model_validate(
        {
            "model": {"size": "nano", "family": "t5", "tokenizer": "words", "config": SMALL},
            "data": "rows",
            "objective": "text_to_text",
            "max_length": 24,
            "batch_size": 20,
            "max_steps": 90,
            "learning_rate": 0.03,
            "schedule": "constant",
            "optimizer": "adafactor",
            "weight_decay": 0,
            "max_grad_norm": False,
            "precision": "fp32",
            "evaluations": 3,
            **settings,
        }
    )
    return dict(train(step, corpora.context(folder, name, {"rows": data})))


def _judged(folder: Path, name: str, data: FilesData, answers: str) -> dict[str, Any]:
    step = EvaluateStep.model_validate(
        {"models": [name], "data": "rows", "answers": answers, "memory": False, "speed": False}
        | {"bootstrap": 100}
    )
    inputs = {name: folder / name / "model"}
    context = corpora.context(folder, f"judged_{answers}", {"rows": data}, inputs=inputs)
    return evaluate(step, context)["models"][name]


def test_numbers_are_learned_as_rounded_text_and_told_both_ways(folder: Path) -> None:
    trained = _trained(folder, "scores", NUMBERS)
    task = Task.read(folder / "scores" / "model")
    assert task.label_words == number_words(0.13, 1.95, 0.2) and task.objective == "regression"
    assert trained["validation"]["pearson"] > 0.9
    told = _judged(folder, "scores", NUMBERS, "likelihood")
    written = _judged(folder, "scores", NUMBERS, "generated")
    assert told["pearson"]["value"] == pytest.approx(trained["validation"]["pearson"])
    assert written["pearson"]["value"] > 0.9
    assert written["exact_match"] > 0.8 and written["not_a_word"] < 0.2
    table = pq.read_table(folder / "judged_generated" / "predictions.parquet").to_pydict()
    exact = [
        text == task.label_words[nearest_words(np.array([gold]), np.array(task.word_values))[0]]
        for text, gold in zip(table["scores.text"], table["label"], strict=True)
    ]
    assert written["exact_match"] == np.mean(exact)


def test_a_written_text_that_is_no_word_is_wrong(folder: Path) -> None:
    _trained(folder, "named", CLASSES, max_steps=60)
    right = _judged(folder, "named", CLASSES, "generated")
    assert right["accuracy"]["value"] == right["exact_match"] > 0.8
    file = folder / "named" / "model" / "task.json"
    task = json.loads(file.read_text())
    file.write_text(json.dumps({**task, "label_words": ["arid", "wet"]}))  # it still writes "dry"
    found = _judged(folder, "named", CLASSES, "generated")
    table = pq.read_table(folder / "judged_generated" / "predictions.parquet").to_pydict()
    assert "dry" in table["named.text"]
    assert {
        p for p, t in zip(table["named.prediction"], table["named.text"], strict=True) if t == "dry"
    } == {-1}
    assert found["not_a_word"] > 0 and found["accuracy"]["value"] < right["accuracy"]["value"]


def test_numbers_of_a_wide_range_need_a_larger_step(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"more than 200 multiples of 0.001 .* number_step = 0.0"):
        _trained(folder, "wide", NUMBERS, number_step=0.001)
    with pytest.raises(UsageError, match="number_step"):
        _trained(folder, "plain", NUMBERS, objective="regression", number_step=0.2)


@pytest.mark.parametrize("task", TASKS)
def test_glue_has_t5s_prefixes_and_label_words(task: str, tmp_path: Path) -> None:
    row = TASKS[task]
    columns = dict.fromkeys(row.text[0], "words")
    label = 1 if row.label_names else 2.6
    (tmp_path / task).mkdir()
    for split in ("train", "validation", "validation_matched"):
        text = json.dumps({**columns, "label": label})
        (tmp_path / task / f"{split}.jsonl").write_text(text + "\n")
    if task == "mnli":
        (tmp_path / task / "validation.jsonl").unlink()
    data = load_glue(GlueData(task=task, path=str(tmp_path)), tmp_path, task)
    template = fitting_template(None, data, "train")
    assert template.startswith(f"{task} ")
    assert all(f"{{{place}}}" in template for place in range(data.num_texts))
    assert fitting_template("own: {0}", data, "train") == "own: {0}"


def test_sts_b_has_the_21_words_of_t5() -> None:
    words = number_words(1.0, 5.0, 0.2)
    assert len(words) == 21 and words[0] == "1.0" and words[14] == "3.8"
