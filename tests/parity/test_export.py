"""The deployed model against the torch model: tiny random ones, and the demo's real weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import deployments as made
import tiny
from attar.export import onnxruntime as to_onnx
from attar.export import openvino as to_openvino
from attar.export.float_sites import FLOAT_SITES
from attar.models.config import ChangedModel
from attar.models.deployed.cpu import int8_flags
from attar.models.deployed.cpu_runtimes import OnnxRuntime, OpenVinoRuntime
from attar.models.deployed.runtimes import MODEL_FILES
from attar.models.load import build_model, save_model
from attar.models.simulated.qparams import SiteQParams
from attar.models.simulated.quantized import load_simulated
from attar.models.structure.site_kinds import SITE_KINDS
from attar.scoring.forms import open_form
from attar.tasks.task import Task
from deployments import Deployments

FORMATS = ("openvino", "onnxruntime")
FLOAT_TOLERANCE = 1e-4
"""Logits of order 1: float32 sums in another order."""
SHAPES = ((1, 3), (1, 33), (5, 8), (17, 21))
"""None of them the shape it was traced with."""


def batch(
    rows: int, tokens: int, inputs: tuple[str, ...], pad_id: int = 0, largest: int = 45
) -> dict[str, np.ndarray]:
    """Random ids; every second row is padded."""
    random = np.random.default_rng(rows * 100 + tokens)
    ids = random.integers(5, largest, (rows, tokens))
    mask = np.ones_like(ids)
    mask[1::2, tokens // 2 + 1 :] = 0
    every = {
        "input_ids": np.where(mask == 1, ids, pad_id),
        "attention_mask": mask,
        "token_type_ids": (np.arange(tokens) > tokens // 2).astype(np.int64) * mask,
    }
    return {name: every[name] for name in inputs}


@pytest.mark.parametrize("form", FORMATS)
def test_a_float_export_equals_torch_at_every_shape(deployments: Deployments, form: str) -> None:
    expected = open_form(deployments.float(), 1)
    deployed = open_form(deployments.export("float", form)[0], 1)
    for shape in SHAPES:
        inputs = batch(*shape, deployed.task.input_names)
        difference = np.abs(deployed.logits(inputs) - expected.logits(inputs)).max()
        assert difference < FLOAT_TOLERANCE


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("source", ["int8", "int4"])
def test_an_integer_export_equals_its_simulation_at_every_shape(
    deployments: Deployments, source: str, form: str
) -> None:
    """Nearly always the same rounding: on two blocks hardly a value crosses a boundary."""
    model_folder = getattr(deployments, source)() / "model"
    simulated = load_simulated(model_folder, skip_kinds=FLOAT_SITES).model
    plain = load_simulated(model_folder, skip_kinds=SITE_KINDS).model
    deployed = open_form(deployments.export(source, form)[0], 1)
    errors, differences = [], []
    for shape in SHAPES:
        inputs = batch(*shape, deployed.task.input_names)
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        with torch.inference_mode():
            expected = simulated(**tensors).logits.numpy()
            errors.append((expected - plain(**tensors).logits.numpy()).ravel())
        differences.append((deployed.logits(inputs) - expected).ravel())
    error, difference = (
        float(np.sqrt(np.mean(np.concatenate(parts) ** 2))) for parts in (errors, differences)
    )
    assert error > 0
    assert difference < 0.5 * error


@pytest.mark.parametrize("bits", [4, 8])
def test_a_grid_in_onnx_is_torchs_own(tmp_path: Path, bits: int) -> None:
    site = SiteQParams(
        fqn="x",
        port="output",
        kind="ffn_act",
        block=0,
        bits=bits,
        scale=0.25,
        zero_point=3,
        quant_min=0,
        quant_max=2**bits - 1,
    )
    # away from the middle between two points, where a last bit decides
    x = torch.linspace(-90, 90, 1441).reshape(1, -1) + 0.01
    file = tmp_path / "grid.onnx"
    with to_onnx._quiet_exporter():
        torch.onnx.export(to_onnx.QuantizeDequantize(site), (x,), file, dynamo=True, verbose=False)
    expected = torch.fake_quantize_per_tensor_affine(x, 0.25, 3, 0, site.quant_max).numpy()
    found = OnnxRuntime(file, 1).logits({"x": x.numpy()})
    assert np.array_equal(found, expected)


@pytest.mark.slow
def test_both_runtimes_agree_on_a_roberta(tmp_path: Path) -> None:
    """Its positions are counted from the ids, its head reads a token itself, and it has no
    segments."""
    inputs = ("input_ids", "attention_mask")
    model = tiny.tiny_model("roberta", blocks=1).eval()
    model.save_pretrained(tmp_path)
    names = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
    Task(objective="classification", label_names=names, max_length=16, input_names=inputs).write(
        tmp_path
    )
    to_openvino.write_openvino(tmp_path, tmp_path, inputs)
    to_onnx.write_onnx(tmp_path, tmp_path, inputs)
    runtimes = [
        OpenVinoRuntime(tmp_path / MODEL_FILES["openvino"][0], 1),
        OnnxRuntime(tmp_path / MODEL_FILES["onnxruntime"][0], 1),
    ]
    for shape in ((1, 5), (4, 9)):
        given = batch(*shape, inputs, pad_id=model.config.pad_token_id, largest=20)
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(values) for name, values in given.items()}
            expected = model(**tensors).logits.numpy()
        for runtime in runtimes:
            assert np.abs(runtime.logits(given) - expected).max() < FLOAT_TOLERANCE


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A block of the demo's model with a random head, float and quantized."""
    root = tmp_path_factory.mktemp("real")
    task = Task(
        objective="classification",
        label_names=made.LABELS,
        max_length=64,
        input_names=("input_ids", "attention_mask", "token_type_ids"),
    )
    kept = ChangedModel(source="demo:minilm-l6", keep_blocks=(3,))
    loaded = build_model(kept, {}, root, task, seed=0)
    save_model(replace(loaded, task=task), root / "float" / "model")
    return root / "float", made.quantized(root, root / "float")


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("form", FORMATS)
def test_real_weights_run_in_int8_at_a_quarter_of_the_size(
    form: str, real: tuple[Path, Path], tmp_path: Path
) -> None:
    float_folder, int8_folder = real
    folder, metrics = made.exported(tmp_path, "deploy", int8_folder, form)
    assert metrics["parity"]["relative_error"] < 1.0
    assert metrics["parity"]["error_ratio"] == pytest.approx(1, abs=0.15)
    assert metrics["fusion"]["num_matmuls"] == 10
    if int8_flags():
        assert metrics["fusion"]["num_int8"] == 8
    assert open_form(float_folder, 1).size_mib / open_form(folder, 1).size_mib > 3.5
