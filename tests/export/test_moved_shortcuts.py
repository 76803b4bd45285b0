"""A restored shortcut's factor finds another place, and the model computes what it did."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch

from attar.export.float_sites import FLOAT_SITES
from attar.export.lowering import example_inputs, lower
from attar.export.moved_shortcuts import factor_behind_sum_, moved_shortcuts, shift_in_bias_
from attar.export.openvino import ByteQuantizer, _integer_weight
from attar.models.deployed.cpu_runtimes import OnnxRuntime, OpenVinoRuntime
from attar.models.deployed.runtimes import MODEL_FILES
from attar.models.simulated.quantized import load_simulated
from attar.models.structure.shortcuts import Restore
from deployments import Deployments

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TOLERANCE = 1e-3
"""Of the largest logit: float32 sums in another order, where no value crosses a boundary."""


@pytest.fixture
def migrated(deployments: Deployments) -> Path:
    return deployments.os_plus() / "model"


def test_the_factor_behind_the_sum_changes_no_answer(migrated: Path) -> None:
    simulated = load_simulated(migrated, skip_kinds=FLOAT_SITES).model
    lowered = lower(migrated, _integer_weight, ByteQuantizer, factor_behind_sum_)
    assert any(isinstance(module, Restore) for module in simulated.modules())
    assert not any(isinstance(module, Restore) for module in lowered.modules())
    inputs = example_inputs(INPUTS)
    with torch.no_grad():
        expected = simulated(**inputs).logits
        difference = (lowered(**inputs) - expected).abs().max()
    assert difference < TOLERANCE * expected.abs().max()


def test_a_shift_in_the_bias_changes_no_answer(migrated: Path) -> None:
    model = load_simulated(migrated).model
    inputs = example_inputs(INPUTS)
    with torch.no_grad():
        expected = model(**inputs).logits
        assert any(bool(moved.restore.shift.any()) for moved in moved_shortcuts(model))
        shift_in_bias_(model, {})
        difference = (model(**inputs).logits - expected).abs().max()
    assert not any(isinstance(module, Restore) for module in model.modules())
    assert difference < TOLERANCE * expected.abs().max()


def test_a_negative_factor_moves_its_sign_into_the_integers(migrated: Path) -> None:
    model = load_simulated(migrated).model
    moved = next(moved_shortcuts(model))
    moved.restore.scale[0] = -2.0
    moved.restore.scale[1] = 4.0
    rows, columns = model.get_submodule(moved.linear).weight.shape
    name = f"{moved.linear}.weight"
    integers = {name: (torch.full((rows, columns), 3), torch.ones(rows))}
    factor_behind_sum_(model, integers)
    values, scales = integers[name]
    assert values[:2, 0].tolist() == [-3, 3]
    assert scales[:2].tolist() == [0.5, 0.25]


def test_a_factor_of_zero_leaves_the_shortcut_as_it_is(migrated: Path) -> None:
    model = load_simulated(migrated).model
    moved = next(moved_shortcuts(model))
    moved.restore.scale[0] = 0.0
    factor_behind_sum_(model, {})
    assert moved.owner.at_shortcut is moved.restore


def test_a_model_without_transform_has_no_shortcut_to_move(deployments: Deployments) -> None:
    assert not list(moved_shortcuts(load_simulated(deployments.uneven_int8() / "model").model))


@pytest.mark.parametrize(("form", "more"), [("openvino", 0), ("onnxruntime", 1)])
def test_the_factor_costs_no_kernel_or_one_product_a_shortcut(
    deployments: Deployments, migrated: Path, tmp_path: Path, form: str, more: int
) -> None:
    counts = []
    plain = {"openvino": "uneven_int8", "onnxruntime": "int8"}  # there the same operators
    for source in (plain[form], "os_plus"):
        file = deployments.export(source, form)[0] / MODEL_FILES[form][0]
        if form == "openvino":
            nodes = OpenVinoRuntime(file, 1).compiled.get_runtime_model().get_ordered_ops()
            kinds = [node.get_rt_info()["layerType"].astype(str) for node in nodes]
        else:
            optimized = tmp_path / "optimized.onnx"
            OnnxRuntime(file, 1, optimized)
            kinds = [node.op_type for node in onnx.load(optimized).graph.node]
        counts.append(Counter(kind for kind in kinds if kind not in ("Const", "Input")))
    num_shortcuts = len(list(moved_shortcuts(load_simulated(migrated).model)))
    assert num_shortcuts > 0
    products = Counter({"Mul": more * num_shortcuts}) if more else Counter()
    assert counts[1] == counts[0] + products
