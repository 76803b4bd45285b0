from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from attar.artifacts import read_json, sha256_of, write_json
from attar.errors import ArtifactError
from attar.models.deployed import cpu
from attar.models.deployed.cpu_runtimes import OnnxRuntime, OpenVinoRuntime
from attar.models.deployed.runtimes import (
    MODEL_FILES,
    Deployment,
    Flops,
    model_size_mib,
    open_runtime,
)
from deployments import Deployments

FORMATS = ("openvino", "onnxruntime")
TOLERANCE = 1e-5
"""Float32 sums of the same numbers in batches of another shape."""


@pytest.fixture(params=FORMATS)
def exported(request: pytest.FixtureRequest, deployments: Deployments, tmp_path: Path) -> Path:
    """A copy of an exported folder that a test may damage."""
    folder, _ = deployments.export("int8", request.param)
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def batch(rows: int = 3, tokens: int = 9) -> dict[str, np.ndarray]:
    ids = np.arange(rows * tokens, dtype=np.int64).reshape(rows, tokens) % 40 + 5
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def test_logits_have_a_row_a_text_and_a_column_a_class(exported: Path) -> None:
    logits = open_runtime(exported, threads=1).logits(batch(rows=3))
    assert logits.shape == (3, 2)
    assert logits.dtype == np.float32


def test_what_a_runtime_returned_is_not_overwritten_by_the_next_call(exported: Path) -> None:
    runtime = open_runtime(exported, threads=1)
    first = runtime.logits(batch())
    kept = first.copy()
    runtime.logits({**batch(), "input_ids": batch()["input_ids"][::-1].copy()})
    assert np.array_equal(first, kept)


def test_padding_changes_no_answer(deployments: Deployments) -> None:
    for form in FORMATS:
        runtime = open_runtime(deployments.export("float", form)[0], threads=1)
        plain = batch(rows=2, tokens=6)
        padded = {name: np.pad(values, ((0, 0), (0, 5))) for name, values in plain.items()}
        assert np.abs(runtime.logits(plain) - runtime.logits(padded)).max() < TOLERANCE


def test_openvino_keeps_float32_and_the_number_of_threads(deployments: Deployments) -> None:
    folder, _ = deployments.export("float", "openvino")
    compiled = OpenVinoRuntime(folder / MODEL_FILES["openvino"][0], threads=1).compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_onnx_runtime_keeps_the_number_of_threads(deployments: Deployments) -> None:
    folder, _ = deployments.export("float", "onnxruntime")
    session = OnnxRuntime(folder / MODEL_FILES["onnxruntime"][0], threads=1)._session
    assert session.get_session_options().intra_op_num_threads == 1


def test_a_flipped_byte_in_the_weights_is_found(exported: Path) -> None:
    file = exported / MODEL_FILES[Deployment.read(exported).format][-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{file.name} was changed"):
        open_runtime(exported)


def test_a_truncated_file_is_found(exported: Path) -> None:
    file = exported / MODEL_FILES[Deployment.read(exported).format][-1]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"changed or cut .* bytes"):
        open_runtime(exported)


def test_a_missing_file_is_named(exported: Path) -> None:
    (exported / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer.json is missing"):
        open_runtime(exported)


def test_a_graph_that_is_no_graph_is_refused_by_name(exported: Path) -> None:
    deployment = Deployment.read(exported)
    name = MODEL_FILES[deployment.format][0]
    (exported / name).write_text("not a model")
    files = {**deployment.files, name: sha256_of(exported / name)}
    deployment.model_copy(update={"files": files}).write(exported)
    with pytest.raises(ArtifactError, match=f"cannot open .*{name}"):
        open_runtime(exported)


def test_a_folder_without_deploy_json_is_no_exported_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no deploy.json"):
        open_runtime(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"version 2, this version of attar reads 1"),
        ({"format": "tflite"}, r"damaged: format"),
        ({"files": {}}, r"must name"),
    ],
)
def test_a_deploy_json_that_cannot_be_is_refused(
    exported: Path, change: dict[str, object], message: str
) -> None:
    file = exported / "deploy.json"
    write_json(file, read_json(file) | change)
    with pytest.raises(ArtifactError, match=message):
        open_runtime(exported)


def test_a_deploy_json_that_points_outside_its_folder_is_refused(exported: Path) -> None:
    file = exported / "deploy.json"
    content = read_json(file)
    content["files"]["../secret"] = "0"
    write_json(file, content)
    with pytest.raises(ArtifactError, match=r"only files of its own folder"):
        open_runtime(exported)


def test_deploy_json_reads_back_as_it_was_written(exported: Path, tmp_path: Path) -> None:
    deployment = Deployment.read(exported)
    deployment.write(tmp_path)
    assert Deployment.read(tmp_path) == deployment
    assert json.loads((tmp_path / "deploy.json").read_text())["precision"] == "int8"


def test_size_counts_graph_and_weights_only(exported: Path) -> None:
    form = Deployment.read(exported).format
    expected = sum((exported / name).stat().st_size for name in MODEL_FILES[form]) / 2**20
    assert model_size_mib(exported, form) == expected
    (exported / "tokenizer.json").write_text("x" * 10**6)
    assert model_size_mib(exported, form) == expected


def test_flops_grow_with_the_square_of_the_length() -> None:
    flops = Flops(per_text=5, per_token=3, per_token_pair=2)
    assert flops.of(4, 10) == 4 * (5 + 3 * 10 + 2 * 100)


@pytest.mark.parametrize(
    ("form", "source", "made_on", "warns"),
    [
        ("onnxruntime", "int8", ["avx512_vnni"], True),
        ("onnxruntime", "int8", [], False),
        ("onnxruntime", "float", ["avx512_vnni"], False),
        ("openvino", "int8", ["avx512_vnni"], False),
    ],
)
def test_8_bit_products_that_may_saturate_on_this_cpu_are_warned_of(
    deployments: Deployments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    source: str,
    made_on: list[str],
    warns: bool,
) -> None:
    folder = Path(shutil.copytree(deployments.export(source, form)[0], tmp_path / "copy"))
    Deployment.read(folder).model_copy(update={"cpu": {"int8": made_on}}).write(folder)
    (tmp_path / "cpuinfo").write_text("flags : avx2 fma\n")
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    if warns:
        with pytest.warns(UserWarning, match=r"avx512_vnni.*may saturate.*export the model again"):
            open_runtime(folder, threads=1)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_runtime(folder, threads=1)
