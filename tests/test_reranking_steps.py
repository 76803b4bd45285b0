"""A model that ranks passages goes through every step, on data that has only the right answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

import attar
import tiny
from attar.data.candidates import query_numbers
from attar.data.config import FilesData
from attar.data.load import load_data
from attar.errors import DataError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.run import evaluate
from attar.export.config import ExportStep
from attar.export.run import export
from attar.numerics.ranking import order_scores
from attar.progress import Progress
from attar.quantization.config import QuantizeStep
from attar.quantization.run import quantize
from attar.scoring.forms import open_form
from attar.step import StepContext
from attar.training.config import TrainStep
from attar.training.run import train
from embedders import write_pairs


def pairs(**settings: Any) -> FilesData:
    usual = {"path": "pairs", "text": ("first", "second"), "objective": "reranking"}
    return FilesData.model_validate(usual | settings)


class Made:
    """The steps' surroundings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write_pairs(root / "pairs", scored=False)
        tiny.write_tiny_bert(root / "bert", num_labels=1)

    def context(self, name: str, **inputs: Path) -> StepContext:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        return StepContext(
            name=name,
            folder=self.root / name,
            scratch=self.root / f".{name}",
            inputs=inputs,
            data={"pairs": pairs(negatives=3)},
            recipe_folder=self.root,
            progress=Progress(quiet=True),
            recipe={"name": "tiny", "data": {"pairs": {}}, "steps": {}},
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("reranking"))


def test_wrong_candidates_are_passages_of_other_queries_and_the_same_every_time(
    made: Made,
) -> None:
    data = load_data(pairs(negatives=3, validation_rows=10), made.root, seed=1)
    split = data.splits["validation"]
    again = load_data(pairs(negatives=3, validation_rows=10), made.root, seed=2)
    assert split.texts == again.splits["validation"].texts
    query_of = query_numbers(split.texts)
    assert np.bincount(query_of).tolist() == [4] * 10
    right = {row for row, label in zip(split.texts, split.labels, strict=True) if label == 1}
    assert len(right) == 10
    answers = dict(right)
    for (query, passage), label in zip(split.texts, split.labels, strict=True):
        assert (answers[query] == passage) is bool(label == 1)
    with pytest.raises(DataError, match="lower negatives"):
        load_data(pairs(negatives=900), made.root)


def test_rows_are_limited_by_whole_queries(made: Made, tmp_path: Path) -> None:
    lines = [
        json.dumps({"first": f"q{q}", "second": f"p{p}", "label": float(p == q)})
        for q in range(6)
        for p in range(3)
    ]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    config = pairs(path=str(tmp_path), validation_rows=7)
    split = load_data(config, tmp_path).splits["validation"]
    assert np.bincount(query_numbers(split.texts)).tolist() == [3, 3]


def test_a_cross_encoder_is_trained_exported_judged_by_query_and_ranks(made: Made) -> None:
    step = TrainStep.model_validate(
        {
            **{"model": "bert", "data": "pairs", "max_length": 32, "batch_size": 16},
            **{"max_steps": 8, "learning_rate": 1e-3, "precision": "fp32", "evaluations": 1},
        }
    )
    metrics = train(step, made.context("learned"))
    assert set(metrics["validation"]) == {"ndcg@10", "mrr@10", "loss"}
    learned = made.root / "learned"
    table = {"model": "learned", "method": "minmax"}
    table["calibration"] = {"data": "pairs", "examples": 32}
    int8 = TypeAdapter(QuantizeStep).validate_python(table)
    quantize(int8, made.context("int8", learned=learned))
    models = {"learned": learned, "int8": made.root / "int8"}
    for name, source in (("deploy", "learned"), ("deploy_int8", "int8")):
        config = ExportStep.model_validate(
            {
                **{"model": source, "format": "openvino", "data": "pairs"},
                "parity": {"examples": 8, "max_relative_error": 10.0},
            }
        )
        export(config, made.context(name, **{source: made.root / source}))
        models[name] = made.root / name
    judged = EvaluateStep(
        models=tuple(models), data="pairs", speed=None, memory=False, bootstrap=100
    )
    found = evaluate(judged, made.context("scores", **models))
    split = load_data(pairs(negatives=3), made.root).splits["validation"]
    form = open_form(learned, 1)
    encoded = form.encode(split.texts)
    scores = np.array([form.logits(encoded.batch([row]))[0, 0] for row in range(len(encoded))])
    by_hand = order_scores(scores, split.labels, query_numbers(split.texts))
    for name in models:
        entry = found["models"][name]["ndcg@10"]
        lost = 0.1 if "int8" in name else 0.02
        assert entry["value"] == pytest.approx(by_hand["ndcg@10"].mean(), abs=lost)
        assert entry["n"] == 40
    assert metrics["validation"]["mrr@10"] == pytest.approx(by_hand["mrr@10"].mean(), abs=0.02)

    labelled = made.root / "labelled"
    labelled.mkdir()
    rows = [
        {"first": first, "second": second, "label": int(label) * (row >= 8)}
        for row, ((first, second), label) in enumerate(zip(split.texts, split.labels, strict=True))
    ]  # the first two queries have no right candidate
    (labelled / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(labelled / "validation.jsonl", labelled / "train.jsonl")
    context = made.context("again", **models)
    context = replace(context, data={"pairs": pairs(path="labelled", label="label")})
    fewer = evaluate(judged, context)["models"]["learned"]["ndcg@10"]
    assert (fewer["n"], fewer["value"]) == (38, pytest.approx(by_hand["ndcg@10"][2:].mean()))

    query, passages = split.texts[0][0], [text for _, text in split.texts[:4]]
    order = attar.load(made.root / "deploy").rank(query, passages)
    assert [number for number, _ in order] == np.argsort(-scores[:4], kind="stable").tolist()
    near = dict(attar.load(made.root / "deploy_int8").rank(query, passages))
    assert [near[i] for i in range(4)] == pytest.approx(scores[:4], abs=0.3)
    audit = json.loads((made.root / "deploy_int8" / "fusion_audit.json").read_text())
    assert audit["num_int8"] > 0
