"""A classifier of every family goes to eight bits, to disk and back, and answers as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import simulated
import tiny
from attar.models.load import load_model
from attar.models.simulated.qparams import ModelQParams
from attar.models.simulated.quantized import load_simulated
from attar.models.structure.sites import quantized_weights, sites_of
from attar.numerics.agreement import sqnr_db

NEAR_DB = 10
"""Of 8-bit logits to float ones, on ids that did not calibrate: 13 to 25. Unrelated logits: 0."""


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_is_written_reads_back_as_the_quantized_model(family: str, tmp_path: Path) -> None:
    # Qwen2's tokenizer adds a token to those of the file
    simulated.write_float_model(tmp_path / "float", family, vocab_size=96)
    simulated.write_texts(tmp_path / "texts")
    made = simulated.run_quantize(tmp_path)
    whole, few = load_model(made.float_folder).model, load_simulated(made.folder).model
    batch = tiny.tiny_batch(tokens=6)
    with torch.no_grad():
        float_logits, logits = (model(**batch).logits for model in (whole, few))
    assert not torch.equal(logits, float_logits)
    assert sqnr_db(float_logits, logits) > NEAR_DB
    assert len(made.metrics["sites"]) == len(sites_of(whole))
    qparams = ModelQParams.read(made.folder)
    names = {weight.fqn for weight in qparams.weights} | set(qparams.tied)
    assert names >= set(quantized_weights(whole))
