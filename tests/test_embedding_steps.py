"""A model that embeds goes through every step: trained, distilled, quantized, exported, judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import TypeAdapter
from typer.testing import CliRunner

import attar
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.errors import DataError, ModelError, UsageError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.run import evaluate
from attar.export.config import ExportStep, Parity
from attar.export.run import export
from attar.losses.term import Needs
from attar.models.load import load_model
from attar.progress import Progress
from attar.quantization.config import QuantizeStep
from attar.quantization.run import quantize
from attar.scoring.forms import open_form
from attar.scoring.vectors import TextPairs, vector_agreement
from attar.step import StepContext
from attar.training.config import TrainStep
from attar.training.run import train
from attar.training.teaching.live import load_live
from embedders import NAMES, data_config, write_embedder, write_pairs

FLOAT = 2e-6
"""Of numbers of unit vectors: float32 sums in another order."""
LENIENT = Parity(examples=40, max_relative_error=10.0)
FORMATS = ("openvino", "onnxruntime")
TEXTS = ["good film", "open the socket and read it", "a", "how do i sort a list " * 9]


class Made:
    """The steps' surroundings, and a model as the first step gets it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write_pairs(root / "pairs", scored=False)
        write_pairs(root / "scored", scored=True)
        write_embedder(root / "model", query_prefix="how do i ", passage_prefix="it is ")

    def context(self, name: str, **inputs: Path) -> StepContext:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        return StepContext(
            name=name,
            folder=self.root / name,
            scratch=self.root / f".{name}",
            inputs=inputs,
            data={
                "pairs": data_config("pairs", scored=False),
                "scored": data_config("scored", scored=True),
            },
            recipe_folder=self.root,
            progress=Progress(quiet=True),
            recipe={"name": "tiny", "data": {"pairs": {}}, "steps": {}},
        )

    def train(self, name: str, **settings: Any) -> dict[str, Any]:
        usual = {
            **{"model": "model", "data": "pairs", "max_length": 24, "batch_size": 8},
            **{"max_steps": 4, "learning_rate": 1e-3, "precision": "fp32", "evaluations": 1},
            "losses": [{"kind": "contrastive"}],
        }
        step = TrainStep.model_validate(usual | settings)
        return dict(train(step, self.context(name)))

    def int8(self) -> Path:
        folder = self.root / "int8"
        if not folder.exists():
            config = TypeAdapter(QuantizeStep).validate_python(
                {
                    **{"model": "float", "method": "minmax"},
                    "calibration": {"data": "pairs", "examples": 32},
                }
            )
            quantize(config, self.context("int8", float=self.root / "model"))
        return folder

    def export(self, source: Path, form: str) -> Path:
        folder = self.root / f"{source.name}-{form}"
        if not folder.exists():
            config = ExportStep(
                model="source",
                format=form,
                data="pairs",
                parity=LENIENT,  # pyright: ignore
            )
            export(config, self.context(folder.name, source=source))
        return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("embedding"))


def vectors_of(folder: Path, rows: list[tuple[str, ...]]) -> np.ndarray:
    """One text at a time, in torch."""
    loaded = load_model(folder)
    assert loaded.task is not None
    encoded = TextEncoder.from_folder(folder, loaded.task.max_length, NAMES).encode(rows)
    found = []
    with torch.no_grad():
        for row in range(len(encoded)):
            batch = {name: torch.from_numpy(x) for name, x in encoded.batch([row]).items()}
            found.append(loaded.model(**batch).logits[0].numpy())
    return np.stack(found)


def test_pooling_and_unit_length_are_in_the_exported_graph(made: Made) -> None:
    """In ONNX Runtime too, as the static student shows: its export takes no seconds."""
    folder = made.export(made.root / "model", "openvino")
    model = attar.load(folder)
    for side, prefix in (("query", "how do i "), ("passage", "it is ")):
        expected = vectors_of(made.root / "model", [(prefix + text,) for text in TEXTS])
        found = model.embed(TEXTS, side=side)  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(found, expected, atol=FLOAT)
        assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["vectors"]["worst_cosine"] > 0.9999
    assert parity["vectors"]["neighbour_overlap"] > 0.99


def test_an_int8_export_says_how_far_its_vectors_turn(made: Made) -> None:
    folder = made.export(made.int8(), "openvino")
    parity = json.loads((folder / "parity.json").read_text())
    assert 0.9 < parity["vectors"]["worst_cosine"] <= parity["vectors"]["cosine"] <= 1.000001
    assert parity["vectors_to_float"]["cosine"] < 1
    assert "ten nearest texts" in (folder / "README.md").read_text()
    audit = json.loads((folder / "fusion_audit.json").read_text())
    assert audit["num_int8"] > 0


def test_equal_texts_have_one_number_on_both_sides() -> None:
    pairs = TextPairs.of([("a", "b"), ("c", "a"), ("a", "d")])
    numbers = dict(zip([*pairs.queries, *pairs.passages], pairs.identities.tolist(), strict=True))
    assert len(set(numbers.values())) == 4
    assert pairs.identities[0] == pairs.identities[len(pairs.queries) + 1] == numbers["a"]


def test_similarity_ranks_a_text_first_for_itself(made: Made) -> None:
    model = attar.load(made.export(made.root / "model", "openvino"))
    found = model.similarity(TEXTS[:3], TEXTS[:3])
    assert found.shape == (3, 3) and np.abs(found).max() <= 1.0001
    assert model.embed([]).shape == (0, 32)


def test_predict_gives_a_vector_a_text(made: Made) -> None:
    from attar.cli import app

    folder = made.export(made.root / "model", "openvino")
    done = CliRunner().invoke(app, ["predict", str(folder), TEXTS[0], "--json"])
    assert done.exit_code == 0, done.output
    vector = json.loads(done.stdout.splitlines()[0])["vector"]
    assert vector == pytest.approx(attar.load(folder).embed(TEXTS[:1], side="query")[0], abs=1e-5)


def test_a_file_is_embedded_as_queries_or_as_passages(made: Made, tmp_path: Path) -> None:
    from attar.cli import app

    folder = made.export(made.root / "model", "openvino")
    source, target = tmp_path / "x.txt", tmp_path / "x.npy"
    source.write_text("\n".join(TEXTS[:3]) + "\n")
    for flags, side in (([], "query"), (["--side", "passage"], "passage")):
        command = ["predict", str(folder), "-i", str(source), "-o", str(target), *flags]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        expected = attar.load(folder).embed(TEXTS[:3], side=side)  # pyright: ignore
        np.testing.assert_allclose(np.load(target), expected, atol=FLOAT)


def test_a_classifier_does_not_embed(made: Made, deployments: Any) -> None:
    with pytest.raises(UsageError, match="has no vectors"):
        attar.load(deployments.export("float", "openvino")[0]).embed(["a"])


def test_a_width_beyond_the_vectors_is_refused(made: Made) -> None:
    step = EvaluateStep(models=("float",), data="pairs", speed=None, memory=False, widths=(8, 33))
    with pytest.raises(UsageError, match=r"widths has 33, and .* 'float' have 32 numbers"):
        evaluate(step, made.context("too_wide", float=made.root / "model"))
    with pytest.raises(ModelError, match=r"width = 33, and the model's hidden size is 32"):
        made.train("wide", max_steps=1, embedding={"width": 33})


def test_every_form_is_judged_by_what_it_finds_and_by_its_neighbours(made: Made) -> None:
    folders = {"float": made.root / "model", "int8": made.int8()}
    folders["deploy"] = made.export(made.int8(), "openvino")
    step = EvaluateStep(
        models=tuple(folders), data="pairs", speed=None, memory=False, bootstrap=100, widths=(8,)
    )
    context = made.context("scores", **folders)
    metrics = evaluate(step, context)
    json.dumps(metrics, allow_nan=False)
    data = load_data(data_config("pairs", scored=False), made.root)
    pairs = TextPairs.of(data.splits["validation"].texts)
    form = open_form(folders["float"], 1)
    assert form.task.embedding is not None
    vectors = vectors_of(made.root / "model", pairs.read_by(form.task.embedding))
    for metric, values in pairs.found(vectors).items():
        entry = metrics["models"]["float"][metric]
        assert entry["value"] == pytest.approx(values.mean())
        assert entry["n"] == len(pairs.queries)
    assert 0 < metrics["models"]["int8"]["agreement"]["neighbour_overlap"] <= 1
    assert "8" in metrics["models"]["float"]["widths"]
    table = pq.read_table(context.folder / "predictions.parquet")
    assert table["float.cosine"].to_pylist() == pytest.approx(pairs.cosines(vectors), abs=1e-5)


def test_scored_pairs_are_judged_by_spearman(made: Made) -> None:
    step = EvaluateStep(models=("float",), data="scored", speed=None, memory=False, bootstrap=100)
    metrics = evaluate(step, made.context("spearman", float=made.root / "model"))
    assert set(metrics["data"]["metrics"]) == {"spearman"}
    assert metrics["models"]["float"]["spearman"]["value"] > 0.3  # shared words, shared states


def test_contrastive_training_finds_more_and_writes_what_it_was_given(made: Made) -> None:
    embedding = {"pooling": "cls", "query_prefix": "how "}
    before = made.train("before", max_steps=1, learning_rate=1e-9, embedding=embedding)
    after = made.train("after", max_steps=40, learning_rate=3e-3, embedding=embedding)
    assert after["validation"]["ndcg@10"] > before["validation"]["ndcg@10"] + 0.05
    task = json.loads((made.root / "after" / "model" / "task.json").read_text())
    assert task["embedding"] == {
        **{"pooling": "cls", "normalize": True},
        **{"query_prefix": "how ", "passage_prefix": ""},
    }


def test_micro_batches_train_as_the_whole_batch(made: Made) -> None:
    losses = [{"kind": "contrastive"}, {"kind": "similarity_kl", "weight": 0.5}]
    write_embedder(made.root / "dry", dropout=0, query_prefix="how do i ", passage_prefix="it is ")
    lines = {}
    for size in (8, 3, 1):
        settings = {"model": "dry", "losses": losses, "teacher": "model", "max_steps": 1}
        made.train(f"cut{size}", **settings, micro_batch_size=size)
        history = (made.root / f"cut{size}" / "history.jsonl").read_text().splitlines()
        lines[size] = next(json.loads(line) for line in history if "grad_norm" in line)
    for size in (3, 1):
        for figure in ("loss", "grad_norm"):
            assert lines[size][figure] == pytest.approx(lines[8][figure], rel=1e-5)


def test_a_shallower_student_comes_near_its_teachers_vectors(made: Made) -> None:
    student = {"from": "model", "keep_blocks": [0]}
    losses = [{"kind": "vector_mse"}, {"kind": "similarity_kl"}, {"kind": "hidden_mse"}]
    settings = {"model": student, "teacher": "model", "losses": losses}
    settings["losses"] = losses[:2]
    made.train("first", **settings, max_steps=1, learning_rate=1e-9)
    made.train("taught", **settings, max_steps=60, learning_rate=3e-3, schedule="constant")
    rows = [(text,) for text in TEXTS]
    teacher = vectors_of(made.root / "model", rows)
    before, after = (
        vector_agreement(vectors_of(made.root / name / "model", rows), teacher).cosine
        for name in ("first", "taught")
    )
    assert (after or 0) > (before or 0) + 0.05
    made.train("inside", model="model", teacher="model", losses=losses[:1] + losses[2:])


def test_quantization_that_learns_follows_the_float_vectors(made: Made) -> None:
    config = {
        **{"model": "float", "method": "lsq", "epochs": 1, "batch_size": 8},
        "calibration": {"data": "pairs", "examples": 16},
    }
    step = TypeAdapter(QuantizeStep).validate_python(config)
    metrics = quantize(step, made.context("lsq", float=made.root / "model"))
    assert metrics["logits_sqnr_db"] > 10
    found = vector_agreement(
        *(
            open_form(folder, 1).logits(
                TextEncoder.from_folder(made.root / "model", 24, NAMES)
                .encode([(text,) for text in TEXTS])
                .batch(range(len(TEXTS)))
            )
            for folder in (made.root / "lsq", made.root / "model")
        )
    )
    assert (found.cosine or 0) > 0.95


def test_what_judges_rows_by_class_or_number_is_refused(made: Made) -> None:
    step = TypeAdapter(QuantizeStep).validate_python(
        {
            **{"model": "float", "method": "percentile", "choose_by": "validation"},
            "calibration": {"data": "pairs", "examples": 16},
        }
    )
    with pytest.raises(ModelError, match="measured by ndcg@10"):
        quantize(step, made.context("judged", float=made.root / "model"))


def test_a_teacher_pools_in_its_own_way_and_reads_with_its_students_prefixes(made: Made) -> None:
    teacher = load_model(made.root / "model")
    assert teacher.task is not None and teacher.task.embedding is not None
    student = teacher.task.model_copy(
        update={"embedding": teacher.task.embedding.model_copy(update={"pooling": "cls"})}
    )
    needs = Needs(teacher_logits=True)
    live = load_live(made.root / "model", student, needs=needs, seed=0)
    inputs = {"input_ids": torch.tensor([[2, 9, 12, 3]])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        assert torch.equal(live(inputs).logits, teacher.model(**inputs).logits)  # pyright: ignore
    other = student.embedding.model_copy(update={"query_prefix": "query: "})
    with pytest.raises(ModelError, match="prefixes"):
        load_live(
            made.root / "model",
            student.model_copy(update={"embedding": other}),
            needs=needs,
            seed=0,
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"losses": []}, "needs losses on vectors"),
        ({"losses": [{"kind": "cross_entropy"}]}, "needs losses on vectors"),
        ({"data": "scored", "losses": [{"kind": "cosine"}]}, "best_score"),
    ],
)
def test_losses_that_do_not_fit_are_refused(made: Made, settings: Any, said: str) -> None:
    with pytest.raises((UsageError, DataError), match=said):
        made.train("refused", **settings)


def test_a_static_student_goes_through_every_step(made: Made) -> None:
    static = {"from": "model", "static_width": 16}
    metrics = made.train("static", model=static, max_steps=0)
    assert metrics["steps"] == 0 and metrics["num_params"] < 2000
    folder = made.root / "static"
    loaded = load_model(folder / "model")
    rows = vectors_of(folder / "model", [(text,) for text in TEXTS])
    assert loaded.model.config.hidden_size == 16 and rows.shape == (4, 16)
    config = {
        **{"model": "float", "method": "auto"},  # which searches ranges, and there are none
        "calibration": {"data": "pairs", "examples": 16},
    }
    quantize(
        TypeAdapter(QuantizeStep).validate_python(config),
        made.context("static_int8", float=folder),
    )
    folders = {"static": folder, "static_int8": made.root / "static_int8"}
    for form in FORMATS:
        for source in (folder, made.root / "static_int8"):
            name = f"{source.name}-{form}"
            folders[name] = made.export(source, form)
            found = attar.load(folders[name]).embed(TEXTS, side="query")
            prefixed = [("how do i " + text,) for text in TEXTS]
            wanted = vectors_of(folder / "model", prefixed)
            assert (found * wanted).sum(axis=1).min() > (0.999999 if source is folder else 0.999)
            assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    step = EvaluateStep(models=tuple(folders), data="pairs", speed=None, memory=False)
    metrics = evaluate(step, made.context("static_scores", **folders))
    assert metrics["models"]["static"]["flops"] == 0
