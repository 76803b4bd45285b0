"""Programs that know nothing of attar open what it writes, and answer as attar does."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from clients_asked import TEXTS, attars_scores, softmax
from deployments import MAX_LENGTH, Deployments

ROUNDING = 1e-5
"""Probabilities in float32, computed in another batch."""
FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def inputs_of(folder: Path, text: str, names: list[str]) -> dict[str, np.ndarray]:
    row = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text)
    return {name: np.array([getattr(row, FIELDS[name])], dtype=np.int64) for name in names}


def labels_of(folder: Path) -> list[str]:
    names = json.loads((folder / "config.json").read_text())["id2label"]
    return [names[str(i)] for i in range(len(names))]


def assert_same(answers: list[dict[str, float]], folder: Path, texts: list[str]) -> None:
    expected = attars_scores(folder, texts)
    assert np.std([scores["good"] for scores in expected]) > 100 * ROUNDING
    for answer, scores in zip(answers, expected, strict=True):
        assert answer == pytest.approx(scores, abs=ROUNDING)


@pytest.mark.parametrize("source", ["float", "int8"])
def test_onnx_runtime_alone(deployments: Deployments, source: str) -> None:
    import onnxruntime

    folder = deployments.export(source, "onnxruntime")[0]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [each.name for each in session.get_inputs()]
    answers = []
    for text in TEXTS:
        (logits,) = session.run(None, inputs_of(folder, text, names))
        answers.append(dict(zip(labels_of(folder), softmax(logits[0]).tolist(), strict=True)))
    assert_same(answers, folder, TEXTS)


@pytest.mark.parametrize("source", ["float", "int8"])
def test_openvino_alone(deployments: Deployments, source: str) -> None:
    import openvino

    folder = deployments.export(source, "openvino")[0]
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.compile_model(folder / "openvino_model.xml", "CPU", settings)
    names = [each.get_any_name() for each in model.inputs]
    answers = []
    for text in TEXTS:
        logits = model(inputs_of(folder, text, names))[0]
        answers.append(dict(zip(labels_of(folder), softmax(logits[0]).tolist(), strict=True)))
    assert_same(answers, folder, TEXTS)


def test_the_pipeline_of_transformers_opens_the_float_folder(deployments: Deployments) -> None:
    import transformers

    classify = transformers.pipeline(
        "text-classification", model=str(deployments.float() / "model")
    )
    found: Any = classify(TEXTS, truncation=True, top_k=None)
    answers = [{each["label"]: each["score"] for each in row} for row in found]
    assert_same(answers, deployments.export("float", "onnxruntime")[0], TEXTS)


def test_a_cross_encoder_of_sentence_transformers_opens_the_float_folder(
    deployments: Deployments,
) -> None:
    from sentence_transformers import CrossEncoder

    from attar.data.tokenize import TextEncoder
    from attar.scoring.forms import open_form

    pairs = [("good movie", "a bad file"), ("how do i sort a list", "read " * 60)]
    form = open_form(deployments.float(), 1)
    model = CrossEncoder(str(form.folder), device="cpu", local_files_only=True)
    found = model.predict(pairs, apply_softmax=True)
    encoder = TextEncoder.from_folder(form.folder, form.task.max_length, form.task.input_names)
    expected = softmax(form.logits(encoder.encode(pairs).batch([0, 1])))
    assert found.tolist() == [pytest.approx(row, abs=ROUNDING) for row in expected.tolist()]


def test_sentence_transformers_reads_the_body_of_a_float_folder_to_the_same_length(
    deployments: Deployments,
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from attar.data.tokenize import TextEncoder

    folder = deployments.float() / "model"
    body = Transformer(str(folder))
    assert body.max_seq_length == MAX_LENGTH
    names = ("input_ids", "attention_mask", "token_type_ids")
    encoded = TextEncoder.from_folder(deployments.float() / "model", MAX_LENGTH, names).encode(
        [(TEXTS[3],)]
    )
    assert body.tokenize([TEXTS[3]])["input_ids"].tolist() == [encoded.ids.tolist()]
    model = SentenceTransformer(modules=[body, Pooling(body.get_embedding_dimension())])
    assert model.encode(TEXTS).shape == (len(TEXTS), 32)


ALONE = """
import runpy, sys
sys.path[:0] = [sys.argv.pop(1)]
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
loaded = {"attar", "torch", "transformers"} & set(sys.modules)
assert not loaded, loaded
"""


@pytest.mark.parametrize(("source", "runtime"), [("float", "onnxruntime"), ("int8", "openvino")])
def test_the_snippet_needs_the_runtime_tokenizers_and_numpy_and_nothing_else(
    deployments: Deployments, tmp_path: Path, source: str, runtime: str
) -> None:
    for name in ("numpy", "numpy.libs", "tokenizers", runtime, f"{runtime}.libs"):
        there = [path for path in map(Path, sys.path) if (path / name).is_dir()]
        if there:
            (tmp_path / name).symlink_to(there[0] / name)
    folder, _ = deployments.export(source, runtime)
    for text, scores in zip(TEXTS[:2], attars_scores(folder, TEXTS[:2]), strict=True):
        command = [sys.executable, "-I", "-S", "-c", ALONE, str(tmp_path)]
        done = subprocess.run(
            [*command, str(folder / "predict.py"), text],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        best = max(scores, key=scores.__getitem__)
        assert done.stdout.split()[0] == best
        assert float(done.stdout.split()[1]) == pytest.approx(scores[best], abs=2e-3)


@pytest.mark.parametrize("step", ["train", "quantize", "export"])
def test_every_written_folder_tells_other_readers_what_attar_knows(
    deployments: Deployments, step: str
) -> None:
    exported = deployments.export("int8", "openvino")[0]
    folder = {
        "train": deployments.float() / "model",
        "quantize": deployments.int8() / "model",
        "export": exported,
    }[step]
    config, settings, tokenizer = (
        json.loads((folder / name).read_text())
        for name in ("config.json", "tokenizer_config.json", "tokenizer.json")
    )
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert config["label2id"] == {"bad": 0, "good": 1}
    assert config["problem_type"] == "single_label_classification"
    assert config["dtype"] == "float32"
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert settings["model_max_length"] == MAX_LENGTH
    assert settings["padding_side"] == settings["truncation_side"] == "right"
    assert settings["pad_token"] == "[PAD]"
    assert settings["model_input_names"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert tokenizer["padding"] is None
    cut = {"direction": "Right", "max_length": MAX_LENGTH, "strategy": "LongestFirst", "stride": 0}
    assert tokenizer["truncation"] == cut


def test_sentence_transformers_is_there() -> None:
    """Else two tests above would not be run and nobody would notice."""
    assert find_spec("sentence_transformers")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_sentence_transformers_gives_the_vectors_of_a_folder_that_embeds(
    tmp_path: Path, pooling: str
) -> None:
    from sentence_transformers import SentenceTransformer

    from attar.data.tokenize import TextEncoder
    from attar.scoring.forms import open_form
    from embedders import write_embedder

    folder = write_embedder(
        tmp_path / "model", pooling=pooling, query_prefix="how do i ", passage_prefix="it is "
    )
    form = open_form(folder, 1)
    assert form.task.embedding is not None
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    assert theirs.max_seq_length == form.task.max_length
    for side, encode in (("query", theirs.encode_query), ("passage", theirs.encode_document)):
        rows = form.task.embedding.read_as(side, TEXTS)  # pyright: ignore[reportArgumentType]
        encoder = TextEncoder.from_folder(folder, form.task.max_length, form.task.input_names)
        ours = form.logits(encoder.encode(rows).batch(range(len(rows))))
        np.testing.assert_allclose(encode(TEXTS), ours, atol=2e-6)
