"""Encoders with simpler feed-forwards in both runtimes: what was simulated is what runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import deployments as made
from attar.artifacts import read_json
from attar.export.config import Parity
from attar.models.config import ChangedModel
from attar.models.load import load_model, save_model
from attar.models.surgery import changed
from attar.reparameterization.fold import folded

FORMATS = ("openvino", "onnxruntime")
PARITY = Parity(examples=48, max_label_flips=1.0)
"""The ratio keeps its default; labels of a random model flip at a breath."""


def simpler(root: Path, variant: str) -> Path:
    """A fine-tuned-looking encoder with a variant, and for `1w` one that was folded."""
    wanted = {"from": "it", "ffn": "3w" if variant == "1w" else variant, "ffn_start": "random"}
    loaded = load_model(made.fine_tuned(root, blocks=1) / "model")
    model: Any = changed(loaded.model, ChangedModel.model_validate(wanted))
    model = folded(model).model if variant == "1w" else model
    save_model(replace(loaded, model=model), root / "model")
    return root


@pytest.fixture(scope="module")
def folded_int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("folded")
    source = simpler(root / "float", "1w")
    return root, made.quantized(root, source)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_a_folded_model_runs_in_int8_with_parity(folded_int8: Any, form: str) -> None:
    root, source = folded_int8
    folder, metrics = made.exported(root, form, source, form, PARITY)
    audit = read_json(folder / "fusion_audit.json")
    # in the block q, k, v, out and one matrix; then the pooler and the classifier
    assert audit["num_int8"] == 5 + 2, audit
    assert metrics["parity"]["against"] == "simulated"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["2w", "skip"])
def test_a_float_variant_answers_as_attars_own_model(tmp_path: Path, variant: str) -> None:
    source = simpler(tmp_path / "float", variant)
    _, metrics = made.exported(tmp_path, "deploy", source, "openvino")
    assert metrics["parity"]["max_difference"] <= 1e-4
