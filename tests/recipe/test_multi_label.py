"""Several labels for a text, through a whole recipe: train, distil, quantize, export, evaluate,
report, predict."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import forked
import tiny
import tiny_recipe
from attar.artifacts import read_result
from attar.data.config import FilesData
from attar.export.deployed import Deployed
from attar.progress import Progress
from attar.recipe.load import parse_recipe
from attar.recipe.run import run_resolved
from attar.recipe.running.saved import Source
from attar.step import StepContext
from attar.tasks.task import Task
from attar.training.config import TrainStep
from attar.training.run import train

WORDS = {"bad": "bad", "good": "great", "net": "socket"}
TEXTS = ["a great film", "a bad socket", "the movie", "bad great socket"]
RECIPE = tiny_recipe.RECIPE.replace(
    'text = "text"', 'text = "text"\nobjective = "multi_label"'
).replace("max_steps = 2", "max_steps = 40\nlearning_rate = 3e-3", 1)
RECIPE = RECIPE.replace('"onnxruntime"', '"safetensors"').replace("deploy_ort", "packed")
RECIPE = RECIPE.replace('model = "bert"', 'model = { from = "bert", new_head = true }', 1)
RECIPE = RECIPE.replace(
    "[steps.student]",
    """thresholds = { net = 0.4 }
losses = [{ kind = "cross_entropy", class_weights = "balanced" }]

[steps.student]
thresholds = 0.3""",
    1,
)


def write_rows(folder: Path) -> None:
    draw = random.Random(0)
    fillers = "a the film movie is it to you and in how".split()
    folder.mkdir()
    for split, rows in (("train", 48), ("validation", 24)):
        lines = []
        for row in range(rows):
            labels = [label for label in WORDS if draw.random() < 0.4]
            words = draw.choices(fillers, k=4) + [WORDS[label] for label in labels]
            draw.shuffle(words)
            text = f"{' '.join(words)} {row}"
            lines.append(json.dumps({"text": text, "label": "|".join(labels)}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multi")
    write_rows(folder / "films")
    tiny.write_tiny_bert(folder / "bert", num_labels=3)
    run_resolved(parse_recipe(RECIPE), Source(folder), folder / "run", estimates={})
    return folder / "run"


def test_training_finds_which_words_stand_for_which_labels(run: Path) -> None:
    """Each label has its word; to give all labels has an F1 of 0.57, to give none 0."""
    root = run.parent
    (root / "learned").mkdir()
    context = StepContext(
        name="learned",
        folder=root / "learned",
        scratch=root / ".learned",
        inputs={},
        data={"films": FilesData(path="films", text="text", objective="multi_label")},
        recipe_folder=root,
        progress=Progress(quiet=True),
    )
    step = TrainStep.model_validate(
        {
            **{"model": {"from": "bert", "new_head": True}, "data": "films", "max_length": 16},
            **{"max_steps": 80, "learning_rate": 1e-2, "batch_size": 16, "precision": "fp32"},
            "evaluations": 1,
        }
    )
    assert train(step, context)["validation"]["micro_f1"] > 0.75


def test_figures_are_those_of_scikit_learn_on_the_written_sets(run: Path) -> None:
    peer = pytest.importorskip("sklearn.metrics")
    table = pq.read_table(run / "scores" / "predictions.parquet")
    labels = np.array(table["label"].to_pylist())
    models = read_result(run / "scores").metrics["models"]
    for name, figures in models.items():
        predicted = np.array(table[f"{name}.prediction"].to_pylist())
        logits = np.array(table[f"{name}.logits"].to_pylist())
        limit = Task.read(run / ("teacher" if name == "teacher" else "student") / "model")
        assert (predicted == (logits >= np.array(limit.cuts))).all()
        for average in ("micro", "macro"):
            theirs = peer.f1_score(labels, predicted, average=average, zero_division=0)
            found = figures[f"{average}_f1"]["value"]
            absent = ((labels + predicted).sum(axis=0) == 0).any()
            assert found == pytest.approx(theirs) or (average == "macro" and absent)
        assert figures["exact_match"] == pytest.approx((labels == predicted).all(axis=1).mean())
        assert set(figures["per_class"]) == set(WORDS)


def test_exported_models_give_the_sets_of_the_thresholds(run: Path) -> None:
    scores = []
    for name in ("deploy", "packed"):
        model = Deployed(run / name, threads=1)
        assert model.task.thresholds == (0.3,) * 3
        answers = model.predict(TEXTS)
        for answer in answers:
            given = {label for label, share in answer.scores.items() if share >= 0.3}
            assert set(answer.labels or ()) == given
            assert answer.label == "|".join(answer.labels or ())
            assert answer.probability is None
        scores.append([list(answer.scores.values()) for answer in answers])
    np.testing.assert_allclose(*scores, atol=0.1)
    shown = forked.said(run / "deploy" / "predict.py", TEXTS[3])
    found = dict(line.split() for line in shown.splitlines())
    (expected,) = Deployed(run / "deploy", threads=1).predict([TEXTS[3]])
    assert set(found) == set(expected.labels or ())


def test_a_folder_of_transformers_is_known_by_its_problem_type(run: Path, tmp_path: Path) -> None:
    from attar.models.foreign import task_of

    config = json.loads((run / "teacher" / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    for file in (run / "teacher" / "model").iterdir():
        if file.name != "task.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    task = task_of(tmp_path)
    assert (task.objective, task.label_names) == ("multi_label", ("bad", "good", "net"))
    assert task.cuts == (0.0, 0.0, 0.0)


def test_the_report_shows_the_labels(run: Path) -> None:
    page = (run / "report" / "index.html").read_text()
    assert "F1 of each class" in page
    assert "micro_f1" in page
