from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attar.export import float_sites, fusion_audit, openvino
from attar.export.config import Parity
from attar.export.fusion_audit import (
    ATTENTION_REASON,
    FOUR_BIT,
    FOUR_BIT_REASON,
    LEFT_REASON,
    LOST_REASON,
    UNKNOWN_REASON,
    UNQUANTIZED_REASON,
    FusionAudit,
    Product,
    audit_onnx,
    audit_openvino,
)
from attar.models.deployed.cpu import int8_flags
from attar.models.deployed.cpu_runtimes import OnnxRuntime
from attar.models.deployed.runtimes import Deployment
from attar.models.load import load_model
from attar.models.simulated.qparams import ModelQParams
from deployments import Deployments, exported, quantized

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
needs_int8_cpu = pytest.mark.skipif(not int8_flags(), reason="this CPU has no int8 dot products")
AUDITS = {"openvino": audit_openvino, "onnxruntime": audit_onnx}


def qparams(deployments: Deployments, source: str = "int8") -> ModelQParams:
    return ModelQParams.read(getattr(deployments, source)() / "model")


def linear_names(deployments: Deployments) -> set[str]:
    model = load_model(deployments.float() / "model").model
    return {n for n, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


@needs_int8_cpu
@pytest.mark.parametrize("form", AUDITS)
@pytest.mark.parametrize("source", ["int8", "int4"])
def test_every_linear_runs_in_int8(deployments: Deployments, source: str, form: str) -> None:
    folder, metrics = deployments.export(source, form)
    audit = AUDITS[form](folder, qparams(deployments, source))
    assert {product.name for product in audit.products if product.is_int8} == linear_names(
        deployments
    )
    assert metrics["fusion"]["num_int8"] == 14
    assert not audit.unexpected()


@pytest.mark.parametrize("form", AUDITS)
def test_the_products_inside_attention_are_found_and_explained(
    deployments: Deployments, form: str
) -> None:
    _, metrics = deployments.export("int8", form)
    assert metrics["fusion"]["num_matmuls"] == 18
    blocks = [f"bert.encoder.layer.{block}.attention.self" for block in (0, 1)]
    expected = {name + number for name in blocks for number in ("", " (2)")}
    found = {entry["name"]: entry["reason"] for entry in metrics["fusion"]["float"]}
    assert found == dict.fromkeys(expected, ATTENTION_REASON)


@needs_int8_cpu
@pytest.mark.parametrize("method", ["auto", "outlier_suppression", "lsq_plus"])
def test_scores_of_symmetric_queries_and_keys_run_in_int8_and_equal_their_simulation(
    deployments: Deployments, tmp_path: Path, method: str
) -> None:
    settings: dict[str, Any] = {"method": method, "query_key_grids": "symmetric"}
    settings["calibration"] = {"data": "texts", "examples": 32, "batch_size": 8}
    if method == "lsq_plus":
        settings |= {"epochs": 1, "batch_size": 32}
    source = quantized(tmp_path, deployments.float(), **settings)
    strict = Parity(examples=48, max_relative_error=0.5)
    folder, metrics = exported(tmp_path, "made", source, "openvino", strict)
    assert Deployment.read(folder).float_sites == ("value", "attention_probs")
    blocks = [f"bert.encoder.layer.{block}.attention.self" for block in (0, 1)]
    found = {entry["name"]: entry["reason"] for entry in metrics["fusion"]["float"]}
    assert found == dict.fromkeys([f"{name} (2)" for name in blocks], ATTENTION_REASON)


@pytest.mark.parametrize("form", AUDITS)
def test_a_float_model_has_no_product_in_int8_and_the_same_products(
    deployments: Deployments, form: str
) -> None:
    fusion = deployments.export("float", form)[1]["fusion"]
    assert fusion["num_int8"] == 0
    assert fusion["num_matmuls"] == 18
    assert {entry["reason"] for entry in fusion["float"]} == {UNQUANTIZED_REASON}
    assert linear_names(deployments) <= {entry["name"] for entry in fusion["float"]}


@needs_int8_cpu
def test_a_linear_whose_input_lost_its_quantizer_is_reported(
    deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float_sites, "FLOAT_SITES", (*float_sites.FLOAT_SITES, "ffn_act"))
    openvino.write_openvino(deployments.int8() / "model", tmp_path, INPUTS)
    unexpected = audit_openvino(tmp_path, qparams(deployments)).unexpected()
    names = {f"bert.encoder.layer.{block}.output.dense" for block in (0, 1)}
    assert {product.name for product in unexpected} == names
    assert {product.reason for product in unexpected} == {UNKNOWN_REASON}


def test_without_its_optimizations_the_runtime_is_reported_slow_and_answers_the_same(
    deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    folder = Path(shutil.copytree(deployments.export("int8", "onnxruntime")[0], tmp_path / "copy"))
    real = onnxruntime.SessionOptions

    def plain() -> Any:
        options = real()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    monkeypatch.setattr(onnxruntime, "SessionOptions", plain)
    audit = audit_onnx(folder, qparams(deployments))
    assert audit.as_metrics()["num_int8"] == 0
    # the fused kernels ignore what a DequantizeLinear says of its axis; others read it
    ids = np.arange(24).reshape(4, 6) + 5
    given = {"input_ids": ids, "attention_mask": 0 * ids + 1, "token_type_ids": 0 * ids}
    plainly = OnnxRuntime(folder / "model.onnx", 1).logits(given)
    monkeypatch.undo()
    fused = OnnxRuntime(folder / "model.onnx", 1).logits(given)
    assert np.abs(plainly - fused).max() < 0.02 * np.abs(fused).max()


@needs_int8_cpu
def test_an_input_that_was_left_in_float_on_purpose_is_explained_and_not_reported(
    deployments: Deployments, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(deployments.int8(), tmp_path / "mixed")) / "model"
    grids = ModelQParams.read(folder)
    left = "bert.encoder.layer.0.output.dense:input"
    kept = tuple(site for site in grids.sites if site.name != left)
    assert len(kept) == len(grids.sites) - 1
    grids = grids.model_copy(update={"sites": kept, "float_tensors": (left,)})
    grids.write(folder)
    openvino.write_openvino(folder, tmp_path, INPUTS)
    audit = audit_openvino(tmp_path, grids)
    slow = {product.name for product in audit.products if product.reason == LEFT_REASON}
    assert slow == {"bert.encoder.layer.0.output.dense"}
    assert not audit.unexpected()


@pytest.mark.parametrize("form", AUDITS)
def test_a_four_bit_kernel_is_named_as_what_it_is(deployments: Deployments, form: str) -> None:
    folder, metrics = deployments.four_bit_kernel(form)
    products = AUDITS[form](folder, qparams(deployments, "int4")).products
    four_bit = {product.name for product in products if product.precision == FOUR_BIT}
    assert four_bit == linear_names(deployments)
    assert {p.reason for p in products if p.name in four_bit} == {FOUR_BIT_REASON}
    assert metrics["fusion"]["num_int8"] == 0


def test_a_product_that_the_runtime_renamed_is_reported_and_not_guessed(
    deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = "bert.pooler.dense"
    real = fusion_audit._executed_products
    monkeypatch.setattr(
        fusion_audit,
        "_executed_products",
        lambda compiled: (
            node for node in real(compiled) if not any(lost in name for name in node.originals)
        ),
    )
    audit = audit_openvino(deployments.export("int8", "openvino")[0], qparams(deployments))
    assert Product(lost, False, "unknown", LOST_REASON) in audit.products
    assert len(audit.products) == 18


def test_the_counts_are_those_of_the_products() -> None:
    audit = FusionAudit((Product("a", True, "k"), Product("b", False, "k", "why")))
    assert audit.as_metrics() == {
        "num_matmuls": 2,
        "num_int8": 1,
        "float": [{"name": "b", "reason": "why"}],
    }
    assert len(audit.as_json()["products"]) == 2
