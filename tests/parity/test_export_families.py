"""Every encoder of the table of families, in eight bits and in float, runs in OpenVINO and answers
as torch does; in ONNX Runtime, whose export takes seconds, those whose graph is unlike BERT's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import deployments
import simulated
import tiny
import training_runs
from attar.artifacts import read_result
from attar.export.config import Parity
from attar.models.structure.families import FAMILIES
from attar.recipe.run import run_recipe

RUN_ELSEWHERE = ("bert", "roberta")
LIKE_ANOTHER = ("xlm-roberta", "electra")
"""Their graphs are those of RoBERTa and of BERT."""
ON_ONNX_RUNTIME = ("mpnet", "modernbert")
"""Relative positions in the scores; rotary ones, and norms without a bias. The others have the
graph of BERT or RoBERTa, and what writes for ONNX Runtime knows no family. A graph in eight bits
shows what ONNX could not say in float: it is that graph, with grids in it."""
ENCODERS = [
    name
    for name in tiny.FAMILIES
    if [stack.is_causal for stack in FAMILIES[tiny.tiny_config(name).model_type].stacks] == [False]
    and name not in RUN_ELSEWHERE
]
BLOCKS = {"modernbert": 2, "mpnet": 2}
"""ModernBERT's second block is of another kind (its attention is local); MPNet's blocks share their
relative positions."""
FLOAT = Parity(examples=24)
"""As a user's export is judged."""


def encoders(*on_onnx_runtime: str) -> pytest.MarkDecorator:
    """Every encoder in OpenVINO, and these also in ONNX Runtime."""
    return pytest.mark.parametrize(
        ("family", "form"),
        [
            pytest.param(name, form, marks=[pytest.mark.slow] if name in LIKE_ANOTHER else [])
            for name in ENCODERS
            for form in ("openvino", "onnxruntime")
            if form == "openvino" or name in on_onnx_runtime
        ],
    )


Quantized = Callable[[str], simulated.QuantizedRun]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """Family → its model in eight bits, made once for all runtimes."""

    def run(family: str) -> simulated.QuantizedRun:
        root = tmp_path_factory.mktemp(family)
        simulated.write_float_model(root / "float", family, blocks=BLOCKS.get(family, 1))
        simulated.write_texts(root / "texts")
        return simulated.run_quantize(root, family)

    return cache(run)


@encoders(*ON_ONNX_RUNTIME)
def test_an_encoder_in_eight_bits_answers_as_its_simulation(
    family: str, form: str, quantized: Quantized, tmp_path: Path
) -> None:
    _, metrics = deployments.exported(tmp_path, form, quantized(family).artifact, form)
    assert metrics["parity"]["error_ratio"] == pytest.approx(1, abs=0.5)
    assert metrics["fusion"]["num_matmuls"] > 0


@pytest.mark.slow
@encoders()
def test_an_encoder_in_float_answers_as_torch(
    family: str, form: str, quantized: Quantized, tmp_path: Path
) -> None:
    _, metrics = deployments.exported(tmp_path, form, quantized(family).float_folder, form, FLOAT)
    assert metrics["parity"]["max_difference"] < 1e-4


RECIPE = """
name = "r"
[data.films]
source = "files"
path = "films"
text = "text"
[steps.teacher]
run = "train"
model = { from = "distilbert", new_head = true }
data = "films"
SETTINGS
[steps.student]
run = "train"
model = { from = "teacher", keep_blocks = [1], intermediate_size = 32 }
teacher = "teacher"
data = "films"
SETTINGS
losses = [{ kind = "forward_kl" }, { kind = "attention_mse" }, { kind = "relation_kl" }]
[steps.int8]
run = "quantize"
method = "minmax"
model = "student"
calibration = { data = "films", examples = 16 }
[steps.deploy]
run = "export"
model = "int8"
format = "openvino"
parity = { examples = 16, max_relative_error = 100.0, max_label_flips = 1.0 }
[steps.scores]
run = "evaluate"
models = ["teacher", "student", "int8", "deploy"]
data = "films"
bootstrap = 100
memory = false
speed = { batch_sizes = [1], tokens = 16, threads = 1, rounds = 3, calls = 1 }
"""


def test_a_distilbert_goes_the_whole_way(tmp_path: Path) -> None:
    settings = "max_steps = 2\nbatch_size = 8\nmax_length = 24\nevaluations = 1"
    training_runs.write_films(tmp_path / "films")
    simulated.write_float_model(tmp_path / "distilbert", "distilbert")
    (tmp_path / "r.toml").write_text(RECIPE.replace("SETTINGS", settings))
    run_recipe(tmp_path / "r.toml", out=tmp_path / "runs", quiet=True)
    scores = read_result(tmp_path / "runs" / "r" / "scores").metrics
    assert set(scores["models"]) == {"teacher", "student", "int8", "deploy"}
