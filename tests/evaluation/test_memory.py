"""Peak memory in a process of its own: the model's, not the parent's; no torch if deployed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import classifiers
import tiny
from attar.artifacts import sha256_of
from attar.errors import ResourceError
from attar.evaluation.memory import measure_memory
from attar.models.deployed.runtimes import ONNX_FILE, Deployment, Flops
from attar.tasks.task import Task

TEXTS = [("open the file",), ("sort a list",)]
ASK = {"tokens": 16, "batch_sizes": (1, 2), "threads": 1}
LOAD_NOISE_MIB = 16
"""Allocators round up and keep spare pages; far below the 64 MiB that must be seen."""


def write_deployed(folder: Path, hidden_size: int) -> Path:
    """logits = mean over tokens of embedding[ids] · square · head, as a real ONNX graph.

    Args:
        hidden_size: the square matrix alone weighs 4 · hidden_size² bytes.
    """
    onnx = pytest.importorskip("onnx")
    tiny.write_tokenizer(folder)
    random = np.random.default_rng(0)
    shapes = {"words": (100, hidden_size), "square": (hidden_size,) * 2, "head": (hidden_size, 3)}
    weights = [
        onnx.numpy_helper.from_array(random.random(shape, dtype=np.float32), name)
        for name, shape in shapes.items()
    ]
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            node("Gather", ["words", "input_ids"], ["embedded"]),
            node("ReduceMean", ["embedded"], ["mean"], axes=[1], keepdims=0),
            node("MatMul", ["mean", "square"], ["wide"]),
            node("MatMul", ["wide", "head"], ["logits"]),
        ],
        "tiny",
        [info("input_ids", onnx.TensorProto.INT64, ["B", "T"])],
        [info("logits", onnx.TensorProto.FLOAT, ["B", 3])],
        weights,
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), folder / ONNX_FILE)
    Task(
        objective="classification",
        label_names=classifiers.COLOURS,
        max_length=32,
        input_names=("input_ids",),
    ).write(folder)
    Deployment(
        format="onnxruntime",
        precision="float32",
        files={ONNX_FILE: sha256_of(folder / ONNX_FILE)},
        input_names=("input_ids",),
        num_params=sum(int(np.prod(shape)) for shape in shapes.values()),
        flops=Flops(per_text=0, per_token=1, per_token_pair=0),
    ).write(folder)
    return folder


def test_a_deployed_model_weighs_what_its_weights_weigh_and_brings_no_torch(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    parents_own = np.ones(300 * 2**17)  # 300 MiB that must not be counted as the child's
    small = measure_memory(write_deployed(tmp_path / "small", 64), TEXTS, **ASK)
    large = measure_memory(write_deployed(tmp_path / "large", 4096), TEXTS, **ASK)
    assert not small.torch_loaded
    assert large.model_mib - small.model_mib >= 64 - LOAD_NOISE_MIB
    assert 0 < small.model_mib < small.peak_rss_mib < parents_own.nbytes / 2**20


@pytest.mark.slow
def test_a_float_model_is_measured_with_torch(tmp_path: Path) -> None:
    found = measure_memory(classifiers.write_classifier(tmp_path / "a"), TEXTS, **ASK)
    assert found.torch_loaded
    assert 0 < found.model_mib < found.peak_rss_mib


def test_a_process_that_ends_without_a_figure_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(ResourceError, match=r"ended with 0 \(no message\).*memory = false"):
        measure_memory(tmp_path, TEXTS, **ASK)


def test_a_process_that_fails_is_reported_with_its_last_words(tmp_path: Path) -> None:
    folder = write_deployed(tmp_path / "cut", 64)
    (folder / ONNX_FILE).write_bytes(b"")
    with pytest.raises(ResourceError, match=r"ended with 1 \(.*ArtifactError.*memory = false"):
        measure_memory(folder, TEXTS, **ASK)


def test_a_signal_to_the_terminal_s_group_does_not_reach_the_measuring_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C goes to every process of the session; an interpreter that tells its own session."""
    told = '{"peak_rss_mib": os.getsid(0), "model_mib": os.getpid(), "torch_loaded": False}'
    interpreter = tmp_path / "interpreter"
    interpreter.write_text(f"#!{sys.executable}\nimport json, os\nprint(json.dumps({told}))\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    found = measure_memory(tmp_path, TEXTS, **ASK)
    assert found.peak_rss_mib == found.model_mib
