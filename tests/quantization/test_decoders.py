"""Models that continue or write text go to few bits by every method, and answer as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

import language_runs
import tiny
import training_runs
from attar.errors import DataError
from attar.models.load import load_model
from attar.models.simulated.qparams import ModelQParams
from attar.models.structure.sites import sites_of
from attar.quantization.calibration.outputs import real_logits
from attar.quantization.config import QuantizeStep
from attar.quantization.learning.qat import LEARNERS
from attar.quantization.methods import METHODS
from attar.quantization.run import quantize
from attar.scoring.forms import open_form

EXACT = 1e-9
WITHOUT_TRAINING = sorted(METHODS.keys() - LEARNERS.keys())
WRITERS = ("t5", "t5_gated", "bart")
ROW = np.arange(4, 20).reshape(2, 8)


def quantized(place: Path, family: str, *, examples: int = 12, **settings: Any) -> dict[str, Any]:
    """Metrics of the real step: a random language model of the family, on text made for its
    task."""
    continues = family not in WRITERS
    if not (place / "model").exists():
        task = {"objective": "causal_lm", "max_length": 16, "metrics": ("nll",)}
        if not continues:
            task = {
                **{"objective": "text_to_text", "max_length": 12, "max_target_length": 6},
                "generation": {"max_new_tokens": 5},
            }
        language_runs.write_random(place / "model", family, **task)
        language_runs.write_running_text(place / "text")
        language_runs.write_pairs(place / "pairs")
    data = language_runs.TEXT if continues else language_runs.PAIRS
    context = training_runs.context_for(place, inputs={"m": place / "model"}, data_config=data)
    calibration = {"data": "films", "examples": examples, "batch_size": 4}
    plain = {"model": "m", "calibration": calibration, "method": "minmax", **settings}
    step: Any = TypeAdapter(QuantizeStep).validate_python(plain)
    metrics = quantize(step, context)
    json.dumps(metrics, allow_nan=False)
    return metrics


def check_answers(place: Path, metrics: dict[str, Any], family: str) -> None:
    """The artifact reads back as what was measured, near its float model."""
    assert metrics["logits_sqnr_db"] > 15
    whole, few = open_form(place / "model"), open_form(place / "out" / "model")
    assert few.form == "simulated"
    if family in WRITERS:
        batch = {"input_ids": ROW, "attention_mask": np.ones_like(ROW)}
        assert few.generate(batch).num_tokens > 0
    else:
        found, expected = few.nats(ROW), whole.nats(ROW)
        assert 0 < np.abs(found - expected).max() < 0.1 * expected.max()


@pytest.mark.parametrize(
    ("family", "method"),
    [
        pytest.param(family, method, marks=pytest.mark.slow if method == "auto" else ())
        for family in ("llama", "t5_gated")
        for method in WITHOUT_TRAINING
    ],
)
def test_every_method_quantizes_it_and_proves_its_transform(
    family: str, method: str, tmp_path: Path
) -> None:
    metrics = quantized(tmp_path, family, method=method)
    moved = metrics["transform"]
    if moved["rule"] != "none":
        assert moved["certificate"]["largest_change"] <= EXACT
        assert sum("left" not in row for row in moved["norms"]) >= 4
    if method == "auto":
        assert all("left" not in row for row in moved["activations"])
    check_answers(tmp_path, metrics, family)


@pytest.mark.parametrize(
    "family", ["gpt2", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "t5", "bart"]
)
def test_every_family_is_quantized_at_every_site(family: str, tmp_path: Path) -> None:
    metrics = quantized(tmp_path, family, method="smoothquant", weights="gptq")
    sites = {site.name for site in sites_of(load_model(tmp_path / "model").model)}
    assert set(metrics["sites"]) == sites
    assert all(
        site["sqnr_db"] is None or site["sqnr_db"] > 20 for site in metrics["sites"].values()
    )
    assert metrics["transform"]["certificate"]["largest_change"] <= EXACT
    qparams = ModelQParams.read(tmp_path / "out" / "model")
    if family == "gpt2":  # its maps are stored transposed in the float model
        assert {w.shape for w in qparams.weights if "c_attn" in w.fqn} == {(96, 32)}
    check_answers(tmp_path, metrics, family)


def test_kept_logits_are_the_models_own_under_a_soft_cap() -> None:
    model = tiny.tiny_language_model("gemma2", final_logit_softcapping=0.1)
    batch = {name: tiny.tiny_batch()[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        own = model(**batch).logits[batch["attention_mask"] > 0]
        torch.testing.assert_close(real_logits(model, batch), own)
    assert own.abs().max() < 0.1


def test_calibration_reads_packed_blocks_of_documents_in_a_seeded_order(tmp_path: Path) -> None:
    metrics = quantized(tmp_path, "llama", examples=9)
    assert metrics["calibration"]["examples"] == 9
    assert metrics["calibration"]["tokens"] == 9 * 16, "every block is full"
    read = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert read["indices"] != sorted(read["indices"])
    assert len(set(read["indices"])) == len(read["indices"]) < 30


def test_too_little_running_text_is_told_in_blocks(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"needs 500 examples, .* training blocks of 16 tokens; lower"
    ):
        quantized(tmp_path, "gpt2", examples=500)


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llama", "lsq_plus"),
        ("gpt2", "pact"),
        pytest.param("t5", "lsq", marks=pytest.mark.slow),
    ],
)
def test_training_through_the_grids_lowers_the_loss(
    family: str, method: str, tmp_path: Path
) -> None:
    bits = {"weight_bits": 4, "activation_bits": 6}
    learning = {"epochs": 6, "batch_size": 4, "learning_rate": 2e-3, "start": "minmax"}
    metrics = quantized(tmp_path, family, method=method, **bits, **learning)
    lines = (tmp_path / "out" / "history.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines]
    losses = [line["loss"] for line in history if "loss" in line]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    assert metrics["training"]["last_losses"].keys() == {"forward_kl", "cross_entropy"}
    assert metrics["training"]["validation"].keys() >= {"nll"}
    assert open_form(tmp_path / "out" / "model").form == "simulated"
