"""What an evaluation says of classes, confidence and changed answers."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import classifiers
from attar.data.tables import Split
from attar.evaluation.classified import MOST_CHARACTERS, Answers, classified
from attar.evaluation.config import EvaluateStep
from attar.evaluation.run import evaluate
from attar.recipe.outcome.gates import metric_at

NAMES = classifiers.COLOURS


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory):
    """The step's metrics and its table of predictions, of two models."""
    folder = tmp_path_factory.mktemp("classified")
    config = classifiers.write_rows(folder / "data")
    models = {n: classifiers.write_classifier(folder / n, seed=i) for i, n in enumerate("ab")}
    context = classifiers.context_for(folder, config, models)
    step = EvaluateStep(
        models=("a", "b"), data="colours", speed=None, memory=False, bootstrap=100, changed_texts=3
    )
    metrics = evaluate(step, context)
    json.dumps(metrics, allow_nan=False)
    return metrics, pq.read_table(context.folder / "predictions.parquet")


def test_figures_of_classes_are_those_of_the_written_predictions(evaluated) -> None:
    peer = pytest.importorskip("sklearn.metrics")
    metrics, table = evaluated
    labels = table["label"].to_numpy()
    for name in "ab":
        figures, predicted = metrics["models"][name], table[f"{name}.prediction"].to_numpy()
        assert list(figures["per_class"]) == list(NAMES)
        theirs = peer.precision_recall_fscore_support(labels, predicted, zero_division=0)
        ours = [
            [figures["per_class"][n][key] for n in NAMES] for key in ("precision", "recall", "f1")
        ]
        np.testing.assert_allclose(ours, theirs[:3])
        assert figures["confusion"] == peer.confusion_matrix(labels, predicted).tolist()
        assert figures["macro_f1"]["value"] == pytest.approx(np.mean(theirs[2]))
        assert figures["macro_f1"]["n"] == len(labels)
        wrong = [pair["rows"] for pair in figures["confusions"]]
        assert wrong == sorted(wrong, reverse=True)
        assert sum(wrong) == (labels != predicted).sum()


def test_confidence_is_the_probability_of_the_answer(evaluated) -> None:
    metrics, table = evaluated
    logits = np.array(table["b.logits"].to_pylist())
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence = shares.max(axis=1)
    right = table["b.prediction"].to_numpy() == table["label"].to_numpy()
    figures = metrics["models"]["b"]
    half = figures["confident"]["50"]
    assert half["coverage"] == pytest.approx((confidence >= 0.5).mean())
    assert half["accuracy"] == pytest.approx(right[confidence >= 0.5].mean())
    assert sum(one["rows"] for one in figures["calibration"]) == len(right)
    assert 0 <= figures["ece"] <= 1
    scores = {"scores": metrics}
    assert metric_at("scores.b.ece", scores) == figures["ece"]
    assert metric_at("scores.b.macro_f1", scores) == figures["macro_f1"]["value"]
    recall = figures["per_class"]["red"]["recall"]
    assert metric_at("scores.b.per_class.red.recall", scores) == recall
    assert metric_at("scores.b.confident.50.accuracy", scores) == half["accuracy"]


def test_answers_that_changed_are_counted_and_the_most_confident_shown(evaluated) -> None:
    metrics, table = evaluated
    assert "changed" not in metrics["models"]["a"]
    changed = metrics["models"]["b"]["changed"]
    before, after = (table[f"{name}.prediction"].to_numpy() for name in "ab")
    assert (changed["against"], changed["rows"]) == ("a", (before != after).sum())
    assert 3 == len(changed["texts"]) < changed["rows"]
    sure = [text["confidence"] for text in changed["texts"]]
    assert sure == sorted(sure, reverse=True)
    for text in changed["texts"]:
        row = text["row"]
        assert (text["from"], text["to"]) == (NAMES[before[row]], NAMES[after[row]])
        assert text["label"] == NAMES[table["label"][row].as_py()]


def test_differences_are_told_for_the_metrics_of_the_data_only(evaluated) -> None:
    assert {each["metric"] for each in evaluated[0]["differences"]} == {"accuracy"}


def test_texts_are_cut_and_a_matrix_of_many_classes_is_left_out() -> None:
    names = [str(i) for i in range(40)]
    labels = np.arange(40)
    split = Split(tuple((f"{i} " * 400,) for i in range(40)), labels)
    answers = {
        "first": Answers(labels, np.full(40, 0.5)),
        "second": Answers(np.roll(labels, 1), np.linspace(0, 1, 40)),
    }
    found = classified(answers, split, names, [0.5], 2)
    assert "confusion" not in found["second"]
    assert len(found["second"]["confusions"]) == 20
    texts = found["second"]["changed"]["texts"]
    assert [text["row"] for text in texts] == [39, 38]
    assert len(texts[0]["text"][0]) == MOST_CHARACTERS
