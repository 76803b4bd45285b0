from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import deployments as made
import tiny
from attar.artifacts import read_json
from attar.errors import ArtifactError, GateMissedError, UsageError
from attar.export.config import ExportStep, Parity
from attar.export.model_card import _cpu_limit, lineage_of
from attar.export.run import data_of_model, export, storage_notes
from attar.models.deployed.runtimes import Deployment, Flops
from attar.models.simulated.packing import size_mib
from attar.models.simulated.qparams import ModelQParams
from deployments import Deployments

FORMATS = ("openvino", "onnxruntime")
RECIPE = {
    "name": "demo",
    "data": {"docs": {}, "more": {}},
    "steps": {
        "teacher": {"run": "train", "model": "demo:minilm-l6", "data": "docs"},
        "student": {
            "run": "train",
            "model": {"from": "teacher", "keep_blocks": [1, 3]},
            "teacher": "teacher",
            "data": "docs",
        },
        "int8": {
            "run": "quantize",
            "model": "student",
            "method": "minmax",
            "calibration": {"data": "more"},
        },
    },
}


@pytest.mark.parametrize("form", FORMATS)
def test_the_folder_is_complete(deployments: Deployments, form: str) -> None:
    folder, metrics = deployments.export("int8", form)
    model = {
        "openvino": {"openvino_model.xml", "openvino_model.bin"},
        "onnxruntime": {"model.onnx"},
    }
    papers = {"deploy.json", "README.md", "predict.py", "parity.json", "fusion_audit.json"}
    words = {"tokenizer.json", "tokenizer_config.json", "config.json", "task.json"}
    assert {file.name for file in folder.iterdir()} == model[form] | papers | words
    assert metrics["format"] == form
    assert metrics["parity"] == read_json(folder / "parity.json")
    assert metrics["fusion"]["num_int8"] == read_json(folder / "fusion_audit.json")["num_int8"]
    assert metrics["size_mib"] > 0
    assert metrics["num_params"] > 0


@pytest.mark.parametrize("form", FORMATS)
def test_weights_lie_in_the_file_as_integers(deployments: Deployments, form: str) -> None:
    weights = {"openvino": "openvino_model.bin", "onnxruntime": "model.onnx"}[form]
    small, large = (
        (deployments.export(source, form)[0] / weights).stat().st_size
        for source in ("int8", "float")
    )
    # 20,000 weights of 1 byte instead of 4; biases, norms, scales and the graph stay as they are
    assert large - small > 0.9 * 3 * 20_000 - (35_000 if form == "onnxruntime" else 0)


def test_packed_integers_deploy_as_they_are(deployments: Deployments) -> None:
    folder, metrics = deployments.export("int4", "safetensors")
    model = deployments.int4() / "model"
    for name in ("weights.safetensors", "qparams.json"):
        assert (folder / name).read_bytes() == (model / name).read_bytes()
    assert metrics["size_mib"] == size_mib(model)
    assert metrics["parity"]["relative_error"] == 0
    assert metrics["parity"]["all_sites_error"] == 0
    assert metrics["fusion"]["num_int8"] == 0
    deployment = Deployment.read(folder)
    assert (deployment.precision, deployment.weight_storage) == ("simulated", "packed")
    assert deployment.float_sites == ()
    card = (folder / "README.md").read_text()
    assert "4-bit weights" in card
    assert "stored packed" in card


def test_floats_are_not_packed_and_it_says_what_to_do(
    deployments: Deployments, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"holds floats; quantize the model first"):
        made.exported(tmp_path, "deploy", deployments.float(), "safetensors")


@pytest.mark.parametrize(
    ("bits", "settings", "said"),
    [
        (8, {"weight_storage": "int8"}, None),
        (4, {}, None),
        (6, {"format": "onnxruntime"}, None),
        (5, {"format": "openvino"}, "5 bits in 6"),
        (5, {"format": "onnxruntime"}, None),
        (5, {"format": "safetensors", "weight_storage": "int8"}, None),
        (6, {"weight_storage": "int8"}, "6 bits are stored as bytes"),
        (6, {"weight_storage": "int4_kernel"}, "at most 4 bits: weights of 6 bits"),
    ],
)
def test_a_file_larger_than_its_bits_is_said_to_be(
    deployments: Deployments, bits: int, settings: dict[str, str], said: str | None
) -> None:
    grids = ModelQParams.read(deployments.int8() / "model")
    largest = 2 ** (bits - 1) - 1
    narrow = {"bits": bits, "quant_min": -largest, "quant_max": largest}
    weights = tuple(weight.model_copy(update=narrow) for weight in grids.weights)
    narrow_grids = grids.model_copy(update={"weights": weights})
    notes = storage_notes(ExportStep(model="m", **settings), narrow_grids)  # pyright: ignore[reportArgumentType]
    assert len(notes) == (said is not None)
    assert (said or "") in "".join(notes)


@pytest.mark.parametrize("form", FORMATS)
def test_the_size_of_four_bits_and_the_products_of_eight(
    deployments: Deployments, form: str
) -> None:
    folder, metrics = deployments.export("int4", form)
    assert Deployment.read(folder).weight_storage == "packed"
    assert Deployment.read(folder).precision == "int8"
    kernel_folder, kernel = deployments.four_bit_kernel(form)
    assert Deployment.read(kernel_folder).precision == "int4"
    card = (kernel_folder / "README.md").read_text()
    assert "14 with 4-bit weights and floats" in card
    assert kernel["parity"]["error_ratio"] == pytest.approx(1, abs=0.3)
    assert metrics["parity"]["error_ratio"] == pytest.approx(1, abs=0.3)


def test_an_export_that_misses_the_gate_is_refused(
    deployments: Deployments, tmp_path: Path
) -> None:
    strict = Parity(examples=16, max_relative_error=1e-12)
    with pytest.raises(GateMissedError, match=r"relative_error .* nothing was published"):
        made.exported(tmp_path, "deploy", deployments.int8(), "openvino", strict)


def test_fewer_texts_than_asked_for_are_all_used_and_said(
    deployments: Deployments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parity = made.LENIENT.model_copy(update={"examples": 1000})
    _, metrics = made.exported(tmp_path, "deploy", deployments.float(), "openvino", parity)
    assert metrics["parity"]["examples"] == 64
    assert "parity.examples is 1000" in capsys.readouterr().err
    unsaid = Parity(max_relative_error=100, max_label_flips=1)
    made.exported(tmp_path, "unsaid", deployments.float(), "openvino", unsaid)
    assert "parity.examples" not in capsys.readouterr().err


def test_without_data_it_says_what_is_missing(deployments: Deployments, tmp_path: Path) -> None:
    context = replace(
        made.context_for(tmp_path, "deploy", {"source": deployments.int8()}),
        recipe={"data": {"a": {}, "b": {}}, "steps": {}},
    )
    with pytest.raises(UsageError, match=r'add data = "<name>"'):
        export(ExportStep(model="source"), context)


def test_a_model_without_a_task_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(tiny_bert, tmp_path / "bare"))
    tiny.tiny_model("bert", bare=True).save_pretrained(bare)
    context = made.context_for(tmp_path, "deploy", {"source": bare})
    with pytest.raises(ArtifactError, match=r"no task.json.*no classification head.*; fine-tune"):
        export(ExportStep(model="source", data="texts"), context)


def test_the_texts_are_those_the_model_knows() -> None:
    assert data_of_model("student", RECIPE) == "docs"
    assert data_of_model("int8", RECIPE) == "more"
    assert data_of_model("a folder", RECIPE) is None
    assert data_of_model("a folder", {"data": {"only": {}}}) == "only"


def test_the_lineage_goes_back_to_the_first_model() -> None:
    lines = lineage_of("int8", RECIPE)
    assert [line.split("`")[1] for line in lines] == [
        "demo:minilm-l6",
        "teacher",
        "student",
        "int8",
    ]
    assert "keeping blocks 1, 3 of `teacher`" in lines[2]
    assert "distilled from `teacher`" in lines[2]
    assert "method minmax, calibrated on data `more`" in lines[3]


def test_a_circle_of_models_ends() -> None:
    steps = {"a": {"run": "train", "model": "b"}, "b": {"run": "train", "model": "a"}}
    assert len(lineage_of("a", {"steps": steps})) <= 3


def test_the_card_says_what_it_is_and_what_was_measured(deployments: Deployments) -> None:
    folder, metrics = deployments.export("int8", "openvino")
    card = (folder / "README.md").read_text()
    assert "one of 2 labels: bad, good" in card
    assert "8-bit weights" in card
    fusion = metrics["fusion"]
    assert f"{fusion['num_int8']} of {fusion['num_matmuls']} matrix products" in card
    assert f"{metrics['num_params']:,} parameters" in card
    assert "VNNI" in card


def test_the_card_warns_of_cpus_on_which_8_bit_sums_saturate() -> None:
    facts: dict[str, Any] = {
        "precision": "int8",
        "files": {},
        "input_names": ("input_ids",),
        "num_params": 1,
        "flops": Flops(per_text=0, per_token=0, per_token_pair=0),
    }
    exact = Deployment(format="onnxruntime", cpu={"int8": ["avx512_vnni"]}, **facts)
    assert "give wrong predictions" in _cpu_limit(exact)
    for other in (
        Deployment(format="onnxruntime", cpu={"int8": []}, **facts),
        Deployment(format="openvino", cpu={"int8": ["avx512_vnni"]}, **facts),
    ):
        assert "runs it, but not faster" in _cpu_limit(other)
